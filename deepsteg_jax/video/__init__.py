"""Reading and writing of video clips and still images."""
