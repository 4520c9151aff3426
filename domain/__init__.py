"""The decisions. Nothing here knows IO, a clock or a setting: facts come in, a decision goes out.

Start with `states` (what may become what) and `combinations` (which message says what); every other module is the
decision of one handler, under the handler's own name.
"""
