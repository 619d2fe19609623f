"""Writers of the public data sets' on-disk layouts."""
