//! The names that hops, issuers and hosts have in configuration.

/// Whether it is a DNS label as Kubernetes writes names: 1 to 63 lower-case letters, digits and hyphens, the hyphens
/// inside (RFC 1123 section 2.1, RFC 1035 section 2.3.4).
#[must_use]
pub fn is_dns_label(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_told_from_other_names() {
        for label in ["a", "shop-b", "0", &"a".repeat(63)] {
            assert!(is_dns_label(label), "{label}");
        }
        for other in ["", "-a", "a-", "A", "a_b", "a.b", "ä", &"a".repeat(64)] {
            assert!(!is_dns_label(other), "{other}");
        }
    }
}
