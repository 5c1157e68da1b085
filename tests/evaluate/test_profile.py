from __future__ import annotations

import threading
import time

import pytest

from pathclip.evaluate.profile import REST, Profile, measured


def by_name(profile):
    return {part.name: part for part in profile.table()}


def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_part_inside_another_is_counted_once():
    profile = Profile()
    with profile.part("metrics"):
        time.sleep(0.02)
        with profile.part("encoder"):
            time.sleep(0.05)
    found = by_name(profile)
    assert 0.05 <= found["encoder"].seconds < 0.07
    assert 0.02 <= found["metrics"].seconds < 0.04


def test_the_main_threads_parts_and_the_rest_are_the_whole_run():
    profile = Profile()
    with profile.part("encoder"):
        time.sleep(0.03)
    time.sleep(0.03)
    table = profile.table()
    assert sum(part.share for part in table) == pytest.approx(1)
    assert by_name(profile)[REST].seconds >= 0.03
    assert 0.3 < profile.share("encoder") < 0.6


def test_what_threads_do_beside_has_seconds_but_no_share():
    profile = Profile()

    def decode():
        for _ in range(10):
            with profile.part("decoding"):
                time.sleep(0.005)

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    part = by_name(profile)["decoding"]
    assert part.beside and part.share is None
    assert part.calls == 40
    assert part.seconds >= 0.2 > profile.seconds


def test_processor_time_of_what_is_done_beside_is_not_the_encoders():
    profile = Profile()

    def decode():
        for _ in range(20):
            with profile.part("decoding"):
                burn(0.005)

    thread = threading.Thread(target=decode)
    with profile.part("encoder"):
        thread.start()
        thread.join()
    found = by_name(profile)
    assert found["decoding"].processor == pytest.approx(0.1, abs=0.02)
    assert found["encoder"].processor < 0.05
    assert profile.processor_share("encoder") < 0.4


def test_a_librarys_own_threads_count_for_the_part_that_started_them():
    profile = Profile()
    with profile.part("encoder"):
        thread = threading.Thread(target=burn, args=(0.1,))
        thread.start()
        thread.join()
    assert by_name(profile)["encoder"].processor > 0.08
    assert profile.processor_share("encoder") > 0.8


def test_a_part_that_fails_is_counted_too():
    profile = Profile()
    with pytest.raises(ValueError), profile.part("texts"):
        raise ValueError
    assert by_name(profile)["texts"].calls == 1


def test_details_are_rows_of_their_own_and_add_up_in_the_share():
    profile = Profile()
    for detail in ("model int8", "model fp32"):
        with profile.part("encoder", detail):
            time.sleep(0.02)
    assert [part.detail for part in profile.table() if part.name == "encoder"] == ["model int8", "model fp32"]
    assert profile.share("encoder") > 0.6


def test_without_a_profile_nothing_is_measured():
    with measured(None, "encoder"):
        pass
