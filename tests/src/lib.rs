//! Lab A as a library, end-to-end tests.
