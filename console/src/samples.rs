//! Every page with sample data.
