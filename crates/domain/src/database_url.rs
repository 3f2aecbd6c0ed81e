//! The URL of a PostgreSQL database. It may contain a password, so it is never printed with it.
//!
//! Its parameters are interpreted by the PostgreSQL store.

use std::fmt;

use zeroize::Zeroizing;

/// `postgres://user:password@host:port/database?parameter=value`.
#[derive(Clone)]
pub struct DatabaseUrl(Zeroizing<String>);

/// The text is not such a URL. The error does not repeat it, since it may contain a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a URL like postgres://user@host:5432/database; @, /, ? and % in a name or a password are written as %40, %2F, %3F, %25"
)]
pub struct InvalidDatabaseUrl;

/// Printed instead of a password.
const HIDDEN: &str = "***";

impl DatabaseUrl {
    /// # Errors
    /// When the text has another scheme, or when it is ambiguous which part is the password.
    pub fn parse(text: &str) -> Result<Self, InvalidDatabaseUrl> {
        let rest = after_scheme(text).ok_or(InvalidDatabaseUrl)?;
        let is_plain = !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '#');
        let (authority, _) = split(rest, &['/', '?']);
        let is_clear =
            rest.matches('@').count() == authority.matches('@').count() && authority.matches('@').count() < 2;
        let has_target = !rest.is_empty();
        if is_plain && is_clear && has_target {
            Ok(Self(Zeroizing::new(text.to_owned())))
        } else {
            Err(InvalidDatabaseUrl)
        }
    }

    /// The URL with its password.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// The URL with its password replaced by `***`.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = after_scheme(&self.0).unwrap_or_default();
        let (scheme, _) = self.0.split_at(self.0.len() - rest.len());
        let (authority, rest) = split(rest, &['/', '?']);
        let (path, parameters) = split(rest, &['?']);
        f.write_str(scheme)?;
        match authority.split_once('@') {
            Some((user, host)) => match user.split_once(':') {
                Some((user, _)) => write!(f, "{user}:{HIDDEN}@{host}")?,
                None => write!(f, "{user}@{host}")?,
            },
            None => f.write_str(authority)?,
        }
        f.write_str(path)?;
        for (index, parameter) in parameters.trim_start_matches('?').split('&').enumerate() {
            let mark = match (parameter.is_empty(), index) {
                (true, _) => continue,
                (false, 0) => '?',
                (false, _) => '&',
            };
            match parameter.split_once('=') {
                // A name that contains an escape may decode to `password`.
                Some((name, _)) if name == "password" || name.contains('%') => write!(f, "{mark}{name}={HIDDEN}")?,
                _ => write!(f, "{mark}{parameter}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

fn after_scheme(text: &str) -> Option<&str> {
    ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme))
}

/// Splits before the first of these characters.
fn split<'t>(text: &'t str, ends: &[char]) -> (&'t str, &'t str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_printed() {
        for (text, shown) in [
            ("postgres://alice:hunter2@db.internal:5432/hooks", "postgres://alice:***@db.internal:5432/hooks"),
            ("postgresql://alice:hunter2@one:1,two:2/hooks?a=b", "postgresql://alice:***@one:1,two:2/hooks?a=b"),
            ("postgres://alice@db/hooks?password=hunter2&a=b", "postgres://alice@db/hooks?password=***&a=b"),
            ("postgres://alice:hunter2@db?p%61ssword=hunter2", "postgres://alice:***@db?p%61ssword=***"),
            ("postgres://:hunter2@[::1]:5432", "postgres://:***@[::1]:5432"),
            ("postgres:///hooks?host=/run/postgresql", "postgres:///hooks?host=/run/postgresql"),
        ] {
            let url = DatabaseUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("DatabaseUrl({shown})"));
            assert_eq!(url.reveal(), text);
        }
        assert!(!InvalidDatabaseUrl.to_string().contains("hunter2"));
    }

    #[test]
    fn a_url_with_an_ambiguous_password_is_refused() {
        for text in [
            "",
            "postgres://",
            "mysql://alice@db/hooks",
            "host=db user=alice password=hunter2",
            "postgres://alice:hun@ter2@db/hooks",
            "postgres://alice:hun/ter2@db/hooks",
            "postgres://alice:hun?ter2@db/hooks",
            "postgres://alice:hun#ter2@db/hooks",
            "postgres://db/hooks?password=hun@ter2",
            "postgres://alice:hunter2 @db/hooks",
        ] {
            assert_eq!(DatabaseUrl::parse(text).err(), Some(InvalidDatabaseUrl), "{text}");
        }
    }
}
