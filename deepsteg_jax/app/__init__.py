"""The local web page of `--mode app`.

`server` serves, `page` lays out, `jobs` runs one thing after the other, `work` is what there is to run,
`files` keeps what users drop and get, `live` is the camera, `words` and `html` are how all of them speak.
"""
