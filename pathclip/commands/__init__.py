"""The verbs of the command line, one module each: arguments in, text or JSON out.

The modules import only what reading their arguments takes; the work is imported when it is done.
"""
