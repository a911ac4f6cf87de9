"""The local web page of `--mode app`.

`server` serves and refuses, `page` has the routes, `sessions` the open pages, `jobs` runs one thing after the
other, `work` hides, reveals and compares as `choices` says, `files` keeps what users drop and get, `live` is
the camera, `messages` and `render` with `templates/` make texts and markup.
"""
