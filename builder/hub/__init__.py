"""The repository as a listing of RunPod's Hub: are its files what the Hub takes? Used by the verb `hub lint`."""
