//! Entity tags and the conditions made of them (RFC 9110 sections 8.8.3 and 13.1). Pure; knows nothing of items but
//! their versions.
//!
//! The tag of an answer is the versions of its hops, own hop first: `"1800000000000.0.7"`. A reply shows the items
//! of all hops, so a tag of the first one's version alone would call a changed reply unchanged. Writes touch the
//! first hop's item, so there a tag means its first version, and the tag that a write answers is that version alone.

use std::fmt;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};

use crate::item::Version;

/// More tags than anybody compares with.
const MAX_TAGS: usize = 32;

/// The strong entity tag of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntityTag(String);

/// What `If-Match` and `If-None-Match` of one request ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Preconditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    Any,
    Listed(Vec<Listed>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    is_weak: bool,
    opaque: String,
}

/// What follows for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadVerdict {
    Answer,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// The header that is no list of entity tags.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is neither * nor a list of at most {MAX_TAGS} entity tags such as \"17\"")]
pub(crate) struct MalformedTags(HeaderName);

impl EntityTag {
    pub(crate) fn of(versions: impl IntoIterator<Item = Version>) -> Self {
        let versions: Vec<String> = versions.into_iter().map(|version| version.to_string()).collect();
        Self(versions.join("."))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        // Digits and dots.
        HeaderValue::from_str(&self.to_string()).unwrap_or_else(|_| HeaderValue::from_static("\"0\""))
    }
}

impl fmt::Display for EntityTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", self.0)
    }
}

impl Preconditions {
    /// Absent headers ask for nothing. Several lines of one header are one list (section 5.3).
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, MalformedTags> {
        Ok(Self {
            if_match: tags(headers, header::IF_MATCH)?,
            if_none_match: tags(headers, header::IF_NONE_MATCH)?,
        })
    }

    /// For an item that is there, in the order of section 13.2.2.
    pub(crate) fn judge_read(&self, tag: &EntityTag) -> ReadVerdict {
        let strong = |listed: &Listed| !listed.is_weak && listed.opaque == tag.0;
        let weak = |listed: &Listed| listed.opaque == tag.0;
        if self.if_match.as_ref().is_some_and(|tags| !tags.any(true, strong)) {
            return ReadVerdict::Failed;
        }
        if self
            .if_none_match
            .as_ref()
            .is_some_and(|tags| tags.any(true, weak))
        {
            return ReadVerdict::NotModified;
        }
        ReadVerdict::Answer
    }

    /// Whether an item may be written: `None` is one that is not there.
    pub(crate) fn allow_write(&self, current: Option<Version>) -> bool {
        let is_current = |listed: &Listed| {
            let first = listed.opaque.split('.').next().unwrap_or_default();
            current.is_some_and(|version| first == version.to_string())
        };
        let matches =
            |tags: &Tags| tags.any(current.is_some(), |listed| !listed.is_weak && is_current(listed));
        let none_matches = |tags: &Tags| !tags.any(current.is_some(), is_current);
        self.if_match.as_ref().is_none_or(matches) && self.if_none_match.as_ref().is_none_or(none_matches)
    }
}

impl Tags {
    fn any(&self, exists: bool, equals: impl Fn(&Listed) -> bool) -> bool {
        match self {
            Self::Any => exists,
            Self::Listed(tags) => tags.iter().any(equals),
        }
    }
}

fn tags(headers: &HeaderMap, name: HeaderName) -> Result<Option<Tags>, MalformedTags> {
    let mut lines = Vec::new();
    for value in headers.get_all(&name) {
        match value.to_str() {
            Ok(line) => lines.push(line),
            Err(_) => return Err(MalformedTags(name)),
        }
    }
    if lines.is_empty() {
        return Ok(None);
    }
    let list = lines.join(",");
    if list.trim() == "*" {
        return Ok(Some(Tags::Any));
    }
    match parse(&list) {
        Some(tags) => Ok(Some(Tags::Listed(tags))),
        None => Err(MalformedTags(name)),
    }
}

/// `1#entity-tag`. An opaque tag may hold commas, so this cannot split at them.
fn parse(list: &str) -> Option<Vec<Listed>> {
    let mut tags = Vec::new();
    let mut rest = list;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return (!tags.is_empty()).then_some(tags);
        }
        let (is_weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |rest| (true, rest));
        let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
        let is_etagc = |byte: u8| byte == 0x21 || (0x23..=0x7e).contains(&byte);
        if !opaque.bytes().all(is_etagc) || tags.len() == MAX_TAGS {
            return None;
        }
        tags.push(Listed {
            is_weak,
            opaque: opaque.to_owned(),
        });
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64) -> Version {
        Version::new(number).unwrap()
    }

    fn asked(name: &HeaderName, values: &[&'static str]) -> Preconditions {
        let headers = values
            .iter()
            .map(|value| (name.clone(), HeaderValue::from_static(value)));
        Preconditions::from_headers(&headers.collect()).unwrap()
    }

    #[test]
    fn a_write_with_if_match_needs_the_current_version() {
        let matched =
            |values: &[&'static str], current| asked(&header::IF_MATCH, values).allow_write(current);
        for tags in [
            &["\"7\""] as &[_],
            &["\"6\", \"7\""],
            &["\"6\"", "\"7\""],
            &["\"7.0.9\""],
            &["*"],
        ] {
            assert!(matched(tags, Some(version(7))), "{tags:?}");
            assert!(!matched(tags, None), "{tags:?}");
        }
        for tags in [
            &["\"6\""] as &[_],
            &["W/\"7\""],
            &["\"77\""],
            &["\"0.7\""],
            &["\"\""],
        ] {
            assert!(!matched(tags, Some(version(7))), "{tags:?}");
        }
        assert!(!matched(&["\"0\""], None), "a missing item has no tag");
    }

    #[test]
    fn a_write_with_if_none_match_needs_another_version_or_none() {
        let allowed = |value, current| asked(&header::IF_NONE_MATCH, &[value]).allow_write(current);
        assert!(allowed("*", None));
        assert!(!allowed("*", Some(version(7))));
        assert!(!allowed("\"7\"", Some(version(7))));
        assert!(!allowed("W/\"7.1.2\"", Some(version(7))));
        assert!(allowed("\"6\"", Some(version(7))));
        assert!(Preconditions::default().allow_write(Some(version(7))));
    }

    #[test]
    fn a_read_compares_the_versions_of_all_hops() {
        let tag = EntityTag::of([7, 0, 9].map(version));
        assert_eq!(tag.header(), "\"7.0.9\"");
        let read = |name: HeaderName, value| asked(&name, &[value]).judge_read(&tag);
        for unchanged in ["\"7.0.9\"", "W/\"7.0.9\"", "*", "\"1\", \"7.0.9\""] {
            assert_eq!(
                read(header::IF_NONE_MATCH, unchanged),
                ReadVerdict::NotModified,
                "{unchanged}"
            );
        }
        for changed in ["\"7\"", "\"7.0.8\"", "\"7.0.9.0\""] {
            assert_eq!(
                read(header::IF_NONE_MATCH, changed),
                ReadVerdict::Answer,
                "{changed}"
            );
        }
        assert_eq!(read(header::IF_MATCH, "\"7.0.9\""), ReadVerdict::Answer);
        assert_eq!(read(header::IF_MATCH, "*"), ReadVerdict::Answer);
        assert_eq!(read(header::IF_MATCH, "W/\"7.0.9\""), ReadVerdict::Failed);
    }

    #[test]
    fn what_is_no_list_of_tags_is_malformed() {
        for odd in [
            "",
            "7",
            "\"7",
            "*, \"7\"",
            "\"a\" \"b\"",
            "\"a b\"",
            "w/\"7\"",
            "W/ \"7\"",
            ",",
        ] {
            let headers = HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_str(odd).unwrap())]);
            assert!(Preconditions::from_headers(&headers).is_err(), "{odd:?}");
        }
        let many = vec!["\"1\""; MAX_TAGS + 1].join(",");
        let headers = HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_str(&many).unwrap())]);
        assert!(Preconditions::from_headers(&headers).is_err());
        assert!(asked(&header::IF_MATCH, &["\"a,b\" , \"7\""]).allow_write(Some(version(7))));
    }
}
