"""`pathclip evaluate compare`: what was answered, kept and paired."""
