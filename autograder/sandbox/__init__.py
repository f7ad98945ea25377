"""Running other people's code where it can do no harm.

``host`` is the trusted side. ``zygote``, ``walls``, ``child`` run inside; ``wire`` is what both sides speak.
Nothing from inside is unpickled, evaluated, or believed about its size.
"""
