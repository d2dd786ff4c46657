//! Session tokens: made on request, good for a time that the client names, bounded in number.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Tokens that are good at the same time. A client keeps one for hours; ones that are asked anew for every request push out
/// those that end first.
const MAX_TOKENS: usize = 1024;
/// What the real service takes as a token's time.
const TTL_SECONDS: std::ops::RangeInclusive<u64> = 1..=21600;
/// Length of the real service's tokens without their padding.
const TOKEN_LENGTH: usize = 54;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The tokens of one instance.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    ends: HashMap<String, Instant>,
}

/// The time that a client asks for; `None` for what the real service answers with 400.
pub(super) fn parse_ttl(text: &str) -> Option<Duration> {
    // `parse` would take "+5".
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let seconds = text.parse().ok().filter(|s| digits && TTL_SECONDS.contains(s))?;
    Some(Duration::from_secs(seconds))
}

impl Tokens {
    /// A new token.
    pub(super) fn issue(&mut self, now: Instant, ttl: Duration) -> String {
        if self.ends.len() >= MAX_TOKENS {
            self.ends.retain(|_, end| *end > now);
        }
        if self.ends.len() >= MAX_TOKENS
            && let Some(first) = self.ends.iter().min_by_key(|(_, end)| **end).map(|(t, _)| t.clone())
        {
            self.ends.remove(&first);
        }
        let random: [u8; TOKEN_LENGTH] = rand::random();
        let mut token: String = random.iter().map(|b| char::from(ALPHABET[usize::from(b & 63)])).collect();
        token.push_str("==");
        self.ends.insert(token.clone(), now + ttl);
        token
    }

    /// How long a token is still good; `None` for one that is not.
    pub(super) fn left(&self, now: Instant, token: &str) -> Option<Duration> {
        self.ends.get(token)?.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_its_end_and_no_longer() {
        let (now, mut tokens) = (Instant::now(), Tokens::default());
        let token = tokens.issue(now, Duration::from_secs(10));
        assert_eq!(tokens.left(now + Duration::from_secs(9), &token), Some(Duration::from_secs(1)));
        assert_eq!(tokens.left(now + Duration::from_secs(10), &token), None);
        assert_eq!(tokens.left(now, "no-token"), None);
    }

    #[test]
    fn too_many_tokens_push_out_the_one_that_ends_first() {
        let (now, mut tokens) = (Instant::now(), Tokens::default());
        let long = tokens.issue(now, Duration::from_secs(21600));
        let short = tokens.issue(now, Duration::from_secs(1));
        for _ in 0..MAX_TOKENS {
            tokens.issue(now, Duration::from_secs(60));
        }
        assert_eq!(tokens.ends.len(), MAX_TOKENS);
        assert!(tokens.left(now, &long).is_some() && tokens.left(now, &short).is_none());
    }

    #[test]
    fn only_the_times_of_the_real_service_are_taken() {
        for good in ["1", "21600"] {
            assert!(parse_ttl(good).is_some(), "{good}");
        }
        for bad in ["", "0", "21601", "-1", "+5", "1.5", "abc", "99999999999999999999"] {
            assert!(parse_ttl(bad).is_none(), "{bad}");
        }
    }
}
