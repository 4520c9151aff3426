"""Where payloads stay while references travel. `interface` says what a store is, `folder` keeps it on a disk,
`envelope` is the form in which a request is kept, `content` names bytes by their hash.
"""
