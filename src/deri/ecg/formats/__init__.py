"""Readers of file formats, one module each; :func:`deri.ecg.read_ecg` chooses among them."""
