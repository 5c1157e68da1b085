"""Texts of the synthetic feed: what pathologists write under a picture, and what else passes through a feed.

The words follow the public habit (hashtags of the subspecialties, magnification, abbreviations, emoji,
several languages); no post of anybody was copied. Texts are as the platform's API returns them: `&`, `<` and
`>` are HTML entities.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from pathclip.sources.synthetic_tiles import CLASSES
from pathclip.sources.synthetic_wordings import WORDINGS

GENERAL_HASHTAGS = ("pathology", "pathTwitter", "PathX", "surgpath", "cytopath", "HNpath")
OTHER_HASHTAGS = ("medtwitter", "foodie", "sunday", "travel", "photography", "MedEd")
USERNAMES = tuple(
    f"{first}{second}"
    for first in ("Dr", "Path", "Slide", "Histo", "Micro", "Nuclei", "Stroma", "Gland")
    for second in ("Alvarez", "Brown", "Chen", "Demir", "Eriksen", "Farouk", "Garcia", "Haas", "Ito", "Jones")
)

_CAPTIONS = (
    "{Name} of the {site}. {Feature}.",
    "{Feature} in this {site} specimen: {name}.",
    "Classic {name}, {site}. Note the {feature}.",
    "{age} year old {person}, {site}. {Name} with {feature}.",
    "{Name} ({site}), H&E x{power}. {Feature}.",
    "Textbook example of {name} from the {site}: {feature}.",
    "Not a difficult one but beautiful: {name} of the {site} with {feature}.",
    "Teaching set, slide {number}. {Feature}. Diagnosis: {name}, {site}.",
    "Seen today on service: {name}. {Feature}, {site}.",
    "{Site} resection, {age}{sex}. {Feature} = {name}.",
    "Clinical course was unremarkable. {Site}: {name} & {feature}.",
    "I never tire of {name}. {Feature} (x{power}).",
    "Morning slide from the {site} shows {name}; {feature}, nothing else.",
    "{Feature}, typical for {name}. Size > {number} mm, {site}.",
)
_OPENERS = ("", "", "", "", "Happy Friday! ", "Case of the day: ", "From the archive. ", "Quick share: ")
_CLOSERS = (
    "",
    "",
    "",
    "",
    " Enjoy!",
    " Thanks to {mention} for the block.",
    " cc {mention} {mention}",
    " 👇",
)
_EMOJI = ("", "", "", " 🔬", " 😍", " 🔬🔬", " 💜", " 🧠", " ✨", " 👀")

_QUESTIONS = (
    "{age} year old {person} with a mass, {site}. What is your diagnosis?",
    "{Site} biopsy, H&E x{power}. Thoughts? Benign or malignant?",
    "How would you call this lesion of the {site}? {Feature}.",
    "Would you order immunostains here? {Site}, {feature}.",
    "Spot diagnosis time! {Site}, {age}{sex}. What do you see?",
    # Without a question mark or a usual phrase: what a plain rule must miss.
    "I would love to hear how others call this lesion of the {site} with {feature}.",
)
# A question mark that asks nothing: what a plain rule must wrongly drop.
_RHETORICAL = (
    "Beautiful, isn't it? {Name} of the {site} with {feature}.",
    "Who does not love a textbook case? {Name}, {site}. {Feature}.",
    "Need I say more? {Feature}, so {name} of the {site}.",
    "Why do I enjoy my job? {Name} ({site}), H&E x{power}: {feature}.",
)
_SHORT = ("Wow!", "Beautiful!", "Nice one", "Look 👀", "Friday mood", "Case 7", "Enjoy!", "Yes")
_ADVERTISEMENTS = (
    "Join our free webinar on {tag} this Thursday at {number}:00 CET. Register here: {link}",
    "Early bird registration for our {tag} course ends soon, {number}% discount with code PATH. {link}",
    "Our new book on surgical pathology is out now, order your copy today with {number}% off {link}",
    "We are hiring! Attending pathologist position open in our {tag} team, apply now: {link}",
    "Sign up for the online board review course, {number} lectures and a question bank. {link}",
    # Without a usual phrase, likewise.
    "{number} attending posts in our {tag} team wait for you, details and salary under {link}",
)
_JOKES = (
    "When the frozen section arrives at five on a Friday and you had already put your coat on 😂",
    "My cat has reviewed all slides of today and insists on deeper levels of the tuna 😹",
    "Resident life: coffee number {number} before noon and the tray is still full ☕",
    "Proof that pathologists do see sunlight, a walk after work with {mention} ☀️",
    "Our turnaround times of the last {number} months in one picture, proud of the whole team 💪",
    "Slide from the morning meeting, the take home message for all residents in one list",
    "New portrait for the department web page, I even ironed the white coat 😅",
    "Nobody told me that the microscope room has a better view than the corner office 🏔️",
)
_ANSWERS = (
    "Agree, this is {diagnosis}. {Feature}.",
    "{Diagnosis} for me, given the {feature}.",
    "Great case! {Feature}, so {diagnosis} of the {site}.",
    "I would sign this out as {diagnosis} because of the {feature} 👍",
    "Looks like {diagnosis} to me, lovely {feature}.",
)
_CHATTER = (
    "Thanks for sharing, what a lovely picture of this one!",
    "Beautiful image, I will show it to our residents tomorrow 👏",
    "Great photo and a very nice stain from your lab",
    "Saved for my next teaching session, thank you so much 🙏",
    "Love the colours here, greetings to the whole team from Ankara",
)
_ABROAD = {
    "es": ("Caso de hoy: {name}. Paciente de {age} años, muy buena imagen para los residentes.",
           "Compartimos esta imagen de la biopsia: {name}. Gracias a todo el equipo del hospital."),
    "pt": ("Caso de hoje: {name}. Paciente de {age} anos, uma bela imagem para os residentes.",
           "Compartilho esta imagem da biópsia de ontem: {name}. Obrigado a toda a equipe."),
    "fr": ("Cas du jour : {name}. Patient de {age} ans, une très belle image pour les internes.",
           "Voici une image de la biopsie d'hier : {name}. Merci à toute l'équipe du laboratoire."),
    "de": ("Fall des Tages: {name}. Der Patient ist {age} Jahre alt, ein schönes Bild für die Ausbildung.",
           "Aus unserer Sammlung für die Weiterbildung: {name}. Danke an das ganze Team im Labor."),
    "tr": ("Günün olgusu: {name}. {age} yaşında hasta, asistanlar için çok güzel bir görüntü.",
           "Dün gelen biyopsiden güzel bir görüntü: {name}. Emeği geçen tüm ekibe teşekkürler."),
}  # fmt: skip
LANGUAGES = tuple(_ABROAD)


def caption(class_name: str, rng: np.random.Generator) -> str:
    """An English caption that names the class or its features, with pathology hashtags."""
    text = _pick(_OPENERS, rng) + _pick(_CAPTIONS, rng) + _pick(_CLOSERS, rng) + _pick(_EMOJI, rng)
    return _tagged(_fill(text, rng, class_name), rng, class_name)


def caption_without_hashtag(class_name: str, rng: np.random.Generator) -> str:
    """A caption as `caption` gives, whose hashtags, if any, have nothing to do with pathology."""
    text = _fill(_pick(_CAPTIONS, rng) + _pick(_EMOJI, rng), rng, class_name)
    return f"{text} #{_pick(OTHER_HASHTAGS, rng)}" if rng.random() < 0.5 else text


def caption_abroad(class_name: str, language: str, rng: np.random.Generator) -> str:
    """A caption in one of `LANGUAGES`; the hashtags stay English, as the habit is."""
    name = WORDINGS[class_name].abroad[language]
    text = _pick(_ABROAD[language], rng).format(name=name, age=int(rng.integers(25, 90)))
    return _tagged(_escaped(text + _pick(_EMOJI, rng)), rng, class_name)


def question(class_name: str, rng: np.random.Generator) -> str:
    """A post that asks for the diagnosis instead of giving it."""
    return _tagged(_fill(_pick(_QUESTIONS, rng), rng, class_name), rng, class_name)


def rhetorical(class_name: str, rng: np.random.Generator) -> str:
    """A caption that names the class and its features, with a question that nobody is to answer."""
    return _tagged(_fill(_pick(_RHETORICAL, rng), rng, class_name), rng, class_name)


def too_short(class_name: str, rng: np.random.Generator) -> str:
    """At most two words beside hashtags."""
    return _tagged(_escaped(_pick(_SHORT, rng)), rng, class_name)


def advertisement(rng: np.random.Generator) -> str:
    """An invitation to a course, a webinar, a purchase or a post, with a link."""
    tag = _pick(("#GIpath", "#dermpath", "#hemepath", "#gynpath", "#surgpath"), rng)
    text = _pick(_ADVERTISEMENTS, rng).format(tag=tag, number=int(rng.integers(10, 20)), link=short_link(rng))
    return f"{text} #pathology"


def joke(rng: np.random.Generator) -> str:
    """A remark about the life of pathologists, with their hashtags."""
    text = _pick(_JOKES, rng).format(number=int(rng.integers(3, 12)), mention=f"@{_pick(USERNAMES, rng)}")
    return f"{_escaped(text)} #pathology #{_pick(('surgpath', 'GIpath', 'dermpath', 'cytopath'), rng)}"


def answer(class_name: str, author: str, rng: np.random.Generator) -> str:
    """A reply to `author` that names the disease.

    Raises:
        ValueError: the class is no disease.
    """
    if not WORDINGS[class_name].diagnoses:
        raise ValueError(f"'{class_name}' has no disease term that an answer could name")
    return f"@{author} {_fill(_pick(_ANSWERS, rng), rng, class_name)}"


def chatter(author: str, rng: np.random.Generator) -> str:
    """A reply to `author` that names no disease."""
    return f"@{author} {_escaped(_pick(_CHATTER, rng))}"


def short_link(rng: np.random.Generator) -> str:
    """A link as the platform shortens it."""
    letters = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ0123456789"
    return "https://t.co/" + "".join(letters[i] for i in rng.integers(0, len(letters), 10))


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def _fill(template: str, rng: np.random.Generator, class_name: str) -> str:
    wording = WORDINGS[class_name]
    name, feature, site = (_pick(c, rng) for c in (CLASSES[class_name], wording.features, wording.sites))
    diagnosis = _pick(wording.diagnoses or (class_name,), rng)
    while "{mention}" in template:
        template = template.replace("{mention}", f"@{_pick(USERNAMES, rng)}", 1)
    text = template.format(
        name=name,
        Name=_capital(name),
        feature=feature,
        Feature=_capital(feature),
        site=site,
        Site=_capital(site),
        diagnosis=diagnosis,
        Diagnosis=_capital(diagnosis),
        age=int(rng.integers(25, 90)),
        sex=_pick(("F", "M"), rng),
        person=_pick(("woman", "man", "patient"), rng),
        power=_pick(("40", "100", "200", "400"), rng),
        number=int(rng.integers(2, 60)),
    )
    return _escaped(text)


def _capital(phrase: str) -> str:
    return phrase[0].upper() + phrase[1:]


def _tagged(text: str, rng: np.random.Generator, class_name: str) -> str:
    own = list(WORDINGS[class_name].hashtags)
    tags = [own[i] for i in rng.permutation(len(own))[: int(rng.integers(1, 3))]]
    tags += [tag for tag in GENERAL_HASHTAGS if rng.random() < 0.25 and tag not in tags]
    # Hashtags are written in any case: #GIpath, #gipath, #GIPATH.
    style = rng.random()
    marked = [f"#{tag if style < 0.7 else tag.lower() if style < 0.9 else tag.upper()}" for tag in tags]
    return f"{text} {' '.join(marked)}"
