//! The journal on sled: intents and facts, versioned records.
