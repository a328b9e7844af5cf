"""The GPU side, shared by both modes: model, voice activity, features, media decoding.

Imports none of the other packages. Only `engine.whisper` may import ctranslate2 and
faster_whisper, and only the engine child process imports `engine.whisper`.
"""
