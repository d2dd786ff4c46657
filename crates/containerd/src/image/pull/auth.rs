//! Credentials of registries, in the two forms of the official agent's `ECS_ENGINE_AUTH_DATA`, and which of them a reference gets.

use crate::reference::{DOCKER_HUB, Parts};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use serde::Deserialize;
use std::{collections::BTreeMap, fmt};

/// Credentials by registry. Never shown: its `Debug` names the registries only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// By `host` or `host/path`, without scheme and version.
    logins: BTreeMap<String, Login>,
}

/// A name and a password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Login {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// Credentials that cannot be read. Says where, never what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A type that is neither of the two.
    #[error("`{0}` is not a type of registry credentials: `docker` or `dockercfg`")]
    Kind(String),
    /// Not JSON, or not of that type's form.
    #[error("registry credentials do not have the form of type `{kind}` (line {line}, column {column})")]
    Form {
        /// Which type.
        kind: String,
        /// Where in the text.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// `auth` is not base64 of `name:password`.
    #[error("registry credentials for {0}: `auth` is not base64 of name:password")]
    Encoding(String),
}

#[derive(Deserialize)]
struct Encoded {
    auth: String,
}

impl RegistryAuth {
    /// `docker` is `{"https://host/v1/": {"username": "..", "password": "..", "email": ".."}}`, `dockercfg` is
    /// `{"https://host/v1/": {"auth": "base64 of name:password", "email": ".."}}`.
    pub fn parse(kind: &str, data: &str) -> Result<Self, AuthError> {
        // serde's own text may quote the data.
        let form =
            |e: serde_json::Error| AuthError::Form { kind: kind.into(), line: e.line(), column: e.column() };
        let logins: BTreeMap<String, Login> = match kind {
            "docker" => serde_json::from_str(data).map_err(form)?,
            "dockercfg" => {
                let encoded: BTreeMap<String, Encoded> = serde_json::from_str(data).map_err(form)?;
                encoded.into_iter().map(decode).collect::<Result<_, _>>()?
            }
            other => return Err(AuthError::Kind(other.chars().take(32).collect())),
        };
        let logins = logins.into_iter().map(|(key, login)| (plain_key(&key), login)).collect();
        Ok(Self { logins })
    }

    /// The credentials for a reference: of its registry, or, if the settings go further, of the longest path that it begins with.
    pub(crate) fn login(&self, parts: &Parts) -> Option<&Login> {
        if DOCKER_HUB.contains(&parts.registry.as_str()) {
            return self.logins.get("docker.io");
        }
        let full = format!("{}/{}", parts.registry, parts.repository);
        let begins =
            |key: &str| full.strip_prefix(key).is_some_and(|rest| rest.starts_with('/') || rest.is_empty());
        self.logins
            .iter()
            .filter(|(key, _)| begins(key))
            .max_by_key(|(key, _)| key.len())
            .map(|(_, login)| login)
    }
}

fn decode((key, entry): (String, Encoded)) -> Result<(String, Login), AuthError> {
    let bad = || AuthError::Encoding(plain_key(&key));
    let bytes = STANDARD.decode(entry.auth.trim()).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    let (username, password) = text.split_once(':').ok_or_else(bad)?;
    let login = Login { username: username.to_owned(), password: password.to_owned() };
    Ok((key, login))
}

/// The registry inside a key as `docker login` writes them: `https://index.docker.io/v1/`.
fn plain_key(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    if DOCKER_HUB.contains(&key) { "docker.io".to_owned() } else { key.to_owned() }
}

impl Login {
    /// HTTP's Basic authorization.
    pub(crate) fn basic(&self) -> Option<HeaderValue> {
        let text = STANDARD.encode(format!("{}:{}", self.username, self.password));
        let mut value = HeaderValue::try_from(format!("Basic {text}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegistryAuth").field(&self.logins.keys().collect::<Vec<_>>()).finish()
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_for<'a>(auth: &'a RegistryAuth, reference: &str) -> Option<&'a str> {
        auth.login(&Parts::of(reference).unwrap()).map(|login| login.username.as_str())
    }

    #[test]
    fn both_forms_of_the_official_agent_are_read() {
        // base64 of hub:se:cret, as `docker login` writes it.
        let cfg = r#"{"https://index.docker.io/v1/":{"auth":"aHViOnNlOmNyZXQ=","email":"a@b"}}"#;
        let auth = RegistryAuth::parse("dockercfg", cfg).unwrap();
        assert_eq!(name_for(&auth, "busybox"), Some("hub"));
        assert_eq!(auth.logins["docker.io"].password, "se:cret");
        assert_eq!(name_for(&auth, "quay.io/team/web"), None);
        let docker = r#"{"https://quay.io/v1/":{"username":"q","password":"p","email":"a@b"},"http://10.0.0.1:5000":{"username":"t","password":""}}"#;
        let auth = RegistryAuth::parse("docker", docker).unwrap();
        assert_eq!(name_for(&auth, "quay.io/team/web:1"), Some("q"));
        assert_eq!(name_for(&auth, "10.0.0.1:5000/web"), Some("t"));
        assert_eq!(name_for(&auth, "10.0.0.1/web"), None);
        assert_eq!(name_for(&auth, "busybox"), None);
    }

    #[test]
    fn the_longest_path_that_a_reference_begins_with_decides() {
        let text = r#"{"quay.io":{"username":"all"},"quay.io/team":{"username":"team"},"https://quay.io/team/web":{"username":"web"}}"#;
        let auth = RegistryAuth::parse("docker", text).unwrap();
        assert_eq!(name_for(&auth, "quay.io/other/web"), Some("all"));
        assert_eq!(name_for(&auth, "quay.io/teams/web"), Some("all"));
        assert_eq!(name_for(&auth, "quay.io/team/db"), Some("team"));
        assert_eq!(name_for(&auth, "quay.io/team/web:1"), Some("web"));
    }

    #[test]
    fn what_cannot_be_read_is_named_and_never_quoted() {
        let why = |kind: &str, data: &str| RegistryAuth::parse(kind, data).unwrap_err().to_string();
        assert!(why("dockerconfig", "{}").contains("`dockerconfig` is not a type"));
        assert!(
            why("dockercfg", r#"{"https://quay.io/v1/":{"auth":"c2VjcmV0"}}"#)
                .contains("for quay.io: `auth`")
        );
        let text = why("docker", r#"{"quay.io":{"username":"u","password":123456}}"#);
        assert!(text.contains("line 1") && !text.contains("123456"), "{text}");
        let auth =
            RegistryAuth::parse("docker", r#"{"quay.io":{"username":"u","password":"hunter2"}}"#).unwrap();
        let shown = format!("{auth:?} {:?}", auth.logins["quay.io"]);
        assert!(shown.contains("quay.io") && !shown.contains("hunter2"), "{shown}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(kind in "docker|dockercfg", data in "\\PC{0,200}") {
            drop(RegistryAuth::parse(&kind, &data));
        }
    }
}
