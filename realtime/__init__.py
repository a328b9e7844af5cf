"""Live mode: a WebSocket server that speaks the WhisperLive protocol, and its client."""
