"""Table formats, one file each: how to recognise it, its convention, and the way in and out of ours."""
