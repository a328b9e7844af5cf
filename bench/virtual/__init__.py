"""Live streams in virtual time: made-up speech, a modelled engine, and who watches what comes out."""
