"""Where payloads stay while references travel.

`interface` says what a store is, `folder` keeps it on a disk, `s3` on an S3 server, `url` and `opening` choose between them,
`limits` bounds what S3 may cost, `envelope` is the form in which a request is kept, `content` names bytes by their hash.
"""
