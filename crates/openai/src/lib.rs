//! A client of OpenAI-compatible chat APIs with retries, back-off and several base URLs.
