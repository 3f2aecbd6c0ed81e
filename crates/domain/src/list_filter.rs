//! How the filter of a list is written: as pairs of a name and a text, such as `status` and `failed,skipped`.
//!
//! A query string, a body and the URL of a page give the same pairs, and a stored job keeps them. Several values of one
//! parameter are separated by commas.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;

use super::event_type::EventTypeName;
use super::limits;
use super::time::Timestamp;

/// Reads the name of an event type. Callers' names are looked up in the catalogue; stored ones are taken as they are.
pub type ReadEventName<'r> = &'r dyn Fn(&str) -> Result<EventTypeName, String>;

/// A filter that is written as pairs.
pub trait ListFilter: Default {
    /// The names of its parameters.
    const NAMES: &'static [&'static str];

    /// Sets one parameter, whose name is one of [`Self::NAMES`].
    ///
    /// # Errors
    /// The fault of the text, which names the accepted values.
    fn set(&mut self, name: &str, text: &str, read_event: ReadEventName<'_>) -> Result<(), String>;

    /// The parameters that are set. Reading them gives the same filter.
    fn pairs(&self) -> Vec<(&'static str, String)>;
}

/// A filter with the faults of its parameters: the name and the fault.
pub type Faults = Vec<(String, String)>;

/// Reads a filter from pairs. The text of a name that is not the filter's is a fault, and so is a name given twice.
///
/// # Errors
/// All faults together.
pub fn filter_from_pairs<'p, F: ListFilter>(
    pairs: impl IntoIterator<Item = (&'p str, &'p str)>,
    read_event: ReadEventName<'_>,
) -> Result<F, Faults> {
    let (mut filter, mut faults) = (F::default(), Faults::new());
    let mut given = Vec::new();
    for (name, text) in pairs {
        let read = match F::NAMES.iter().find(|known| **known == name) {
            None => Err("is not a known parameter".to_owned()),
            Some(_) if given.contains(&name) => Err("is given twice".to_owned()),
            Some(_) => filter.set(name, text, read_event),
        };
        given.push(name);
        if let Err(fault) = read {
            faults.push((name.to_owned(), fault));
        }
    }
    if faults.is_empty() { Ok(filter) } else { Err(faults) }
}

/// One or more values separated by commas. A repeated value is taken once, and counts each time: a list of parameters
/// says how many it may have, whatever they are.
///
/// # Errors
/// The fault of the first value at fault, or that there are too many.
pub fn values<T: PartialEq, E: fmt::Display>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, String> {
    if text.split(',').count() > limits::FILTER_VALUES {
        return Err(format!("must have at most {} values", limits::FILTER_VALUES));
    }
    let mut values = Vec::new();
    for part in text.split(',') {
        let value = parse(part).map_err(|error| error.to_string())?;
        if !values.contains(&value) {
            values.push(value);
        }
    }
    Ok(values)
}

/// One instant.
///
/// # Errors
/// The fault of the text.
pub fn instant(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|error| error.to_string())
}

/// One or more of the words of a closed list.
///
/// # Errors
/// A fault that names all words.
pub fn words<T: Copy + PartialEq>(text: &str, all: &[T], word: impl Fn(T) -> &'static str) -> Result<Vec<T>, String> {
    values(text, |part| {
        all.iter().copied().find(|value| word(*value) == part).ok_or_else(|| {
            let words: Vec<&str> = all.iter().map(|value| word(*value)).collect();
            format!("must be one of {}", words.join(", "))
        })
    })
}

/// Adds a parameter unless it has no value.
pub fn add_pair<T>(
    pairs: &mut Vec<(&'static str, String)>,
    name: &'static str,
    values: &[T],
    text: impl Fn(&T) -> String,
) {
    if !values.is_empty() {
        pairs.push((name, values.iter().map(text).collect::<Vec<_>>().join(",")));
    }
}

/// Writes a filter as an object of its pairs.
pub fn serialize<F: ListFilter, S: serde::Serializer>(filter: &F, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(filter.pairs())
}

/// Reads what [`serialize`] wrote.
pub fn deserialize<'d, F: ListFilter, D: serde::Deserializer<'d>>(deserializer: D) -> Result<F, D::Error> {
    let pairs: BTreeMap<String, String> = serde::Deserialize::deserialize(deserializer)?;
    let stored = |name: &str| Ok(EventTypeName::from_stored(name));
    filter_from_pairs(pairs.iter().map(|(name, text)| (name.as_str(), text.as_str())), &stored)
        .map_err(|faults| D::Error::custom(format!("a filter with faults: {faults:?}")))
}
