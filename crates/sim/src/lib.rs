//! Procedural rooms: egocentric videos, questions and true answers.
