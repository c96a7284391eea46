"""Changes of a spec, one small class each, and the list that ``create`` makes of them.

An edit gets the parsed config.json and changes it in place.  It touches only what it is about and
keeps everything that it does not understand; ``containers/bundle.py`` remembers the original.
"""
