//! Tolerant JSON fields: what has an unexpected type counts as missing instead of failing the whole event.
//!
//! Each reads its field as raw text first, which walks nested values without recursion, and only then looks
//! inside. It knows nothing of Ring.

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};
use serde_json::value::RawValue;

/// A string or a number as text; anything else counts as missing.
#[derive(Default)]
pub(crate) struct LooseText(pub(crate) Option<String>);

/// An object of the wanted form; anything that is not an object counts as an empty one.
#[derive(Default)]
pub(crate) struct Loose<T>(pub(crate) T);

/// An object of the wanted form and nothing else; a list would otherwise be read field by field.
pub(crate) struct Object<T>(pub(crate) T);

/// The ids in a list of `{type, id}`; anything that is not a list counts as an empty one.
#[derive(Default)]
pub(crate) struct LooseRefs(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for LooseText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(<&RawValue>::deserialize(deserializer)?).map(Self)
    }
}

impl<'de, T: DeserializeOwned + Default> Deserialize<'de> for Loose<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        if raw.starts_with('{') {
            inner(raw).map(Self)
        } else {
            Ok(Self(T::default()))
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        if raw.starts_with('{') {
            inner(raw).map(Self)
        } else {
            Err(D::Error::custom("not an object"))
        }
    }
}

impl<'de> Deserialize<'de> for LooseRefs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        if !raw.starts_with('[') {
            return Ok(Self::default());
        }
        let references: Vec<Loose<Reference>> = inner(raw)?;
        Ok(Self(
            references
                .into_iter()
                .filter_map(|reference| reference.0.id.0)
                .collect(),
        ))
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Reference {
    id: LooseText,
}

fn text<E: Error>(raw: &RawValue) -> Result<Option<String>, E> {
    match raw.get().as_bytes().first() {
        Some(b'"') => inner(raw.get()).map(Some),
        Some(b'-' | b'0'..=b'9') => Ok(Some(raw.get().to_owned())),
        _ => Ok(None),
    }
}

/// Reads the inside of a raw value. The message carries no text of the value: it may end up in a log.
fn inner<T: DeserializeOwned, E: Error>(raw: &str) -> Result<T, E> {
    serde_json::from_str(raw).map_err(|_| E::custom("a field has the wrong form"))
}
