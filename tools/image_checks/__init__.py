"""What `tools/image_check.py` is made of: build the images, run them in every mode, measure them."""
