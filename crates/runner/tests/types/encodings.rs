//! Databases whose encoding is not UTF-8.
