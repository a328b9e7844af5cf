"""AWS, as far as the builder needs it: one module that talks to it."""
