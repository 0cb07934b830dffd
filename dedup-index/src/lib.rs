//! Page digests and the content index (pure).
