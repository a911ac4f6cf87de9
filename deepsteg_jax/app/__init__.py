"""The local web page of `--mode app`.

`server` serves, `page` lays out, `jobs` runs one thing after the other, `work` hides, reveals and compares,
`files` keeps what users drop and get, `live` is the camera, `messages` and `html` make texts and markup.
"""
