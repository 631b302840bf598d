//! Kubernetes quantities in the one notation in which the API server stores them: `1024Mi` is stored as `1Gi`, `0.5` as
//! `500m`. Built so from the start, nothing differs that nobody changed.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const NANOS: i128 = 1_000_000_000;
/// What the API server rounds resources up to.
const MILLI: i128 = 1_000_000;
/// Of the smallest to the largest, each 1000 times the one before, from nano on.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
/// Each 1024 times the one before.
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// What the API server holds at most (2^63 - 1); larger ones it cuts down to that, which is no business of this module.
const LARGEST: i128 = i64::MAX as i128;

#[derive(Clone, Copy, PartialEq)]
enum Notation {
    Decimal,
    Exponent,
    Binary,
}

/// Bytes in the largest unit that holds them without a fraction.
pub(super) fn bytes(bytes: u64) -> Quantity {
    let notation = if bytes.is_multiple_of(1024) {
        Notation::Binary
    } else {
        Notation::Decimal
    };
    Quantity(written(i128::from(bytes) * NANOS, notation))
}

/// The same amount of a resource as the API server writes it. What is none is left for the API server to refuse.
pub(super) fn canonical(quantity: &Quantity) -> Quantity {
    match read(&quantity.0) {
        Some((nanos, notation)) => {
            let nanos = (nanos + MILLI - 1).div_euclid(MILLI) * MILLI;
            Quantity(written(nanos, notation))
        }
        None => quantity.clone(),
    }
}

/// What it is in whole units, rounded up: bytes of memory.
pub(super) fn whole(quantity: &Quantity) -> Option<u64> {
    let (nanos, _) = read(&quantity.0)?;
    u64::try_from((nanos + NANOS - 1).div_euclid(NANOS)).ok()
}

fn read(text: &str) -> Option<(i128, Notation)> {
    let (sign, unsigned) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let end = unsigned
        .bytes()
        .position(|byte| !byte.is_ascii_digit() && byte != b'.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 18 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let places = u32::try_from(fraction.len()).ok()?;
    let (multiple, tens, notation) = scale(suffix)?;
    // `tens` counts from nano, so that only digits beyond nano are lost, upwards.
    let tens = tens.checked_sub_unsigned(places)?;
    let value = digits.checked_mul(multiple)?;
    let nanos = if tens >= 0 {
        value.checked_mul(10_i128.checked_pow(tens.unsigned_abs())?)?
    } else {
        let divisor = 10_i128.checked_pow(tens.unsigned_abs())?;
        (value + divisor - 1) / divisor
    };
    (nanos <= LARGEST * NANOS).then_some((sign * nanos, notation))
}

/// What a suffix multiplies with, and the power of ten from nano on.
fn scale(suffix: &str) -> Option<(i128, i32, Notation)> {
    if let Some(power) = BINARY.iter().skip(1).position(|unit| *unit == suffix) {
        return Some((
            1024_i128.checked_pow(u32::try_from(power).ok()? + 1)?,
            9,
            Notation::Binary,
        ));
    }
    if let Some(power) = DECIMAL.iter().position(|unit| *unit == suffix) {
        return Some((1, i32::try_from(power).ok()? * 3, Notation::Decimal));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (exponent.abs() <= 27).then_some((1, exponent + 9, Notation::Exponent))
}

fn written(nanos: i128, notation: Notation) -> String {
    if nanos == 0 {
        return "0".to_owned();
    }
    if notation == Notation::Binary && nanos % NANOS == 0 && nanos.abs() >= 1024 * NANOS {
        let (number, power) = reduced(nanos / NANOS, 1024, BINARY.len());
        return format!("{number}{}", BINARY[power]);
    }
    let (number, power) = reduced(nanos, 1000, DECIMAL.len());
    if notation != Notation::Exponent || DECIMAL[power].is_empty() {
        return format!("{number}{}", DECIMAL[power]);
    }
    let thousands = i32::try_from(power).unwrap_or_default() - 3;
    format!("{number}e{}", thousands * 3)
}

/// The number without the base's factors, and how many there were; fewer than `units`.
fn reduced(mut number: i128, base: i128, units: usize) -> (i128, usize) {
    let mut power = 0;
    while power + 1 < units && number % base == 0 {
        number /= base;
        power += 1;
    }
    (number, power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical_text(text: &str) -> String {
        canonical(&Quantity(text.to_owned())).0
    }

    /// kube-apiserver 1.34 stores the right column for the left one, and the right one as it is.
    #[test]
    fn a_quantity_is_written_as_the_api_server_stores_it() {
        for (given, stored) in [
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("20m", "20m"),
            ("1000k", "1M"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("1e3", "1e3"),
            ("1E", "1E"),
            ("512Ki", "512Ki"),
            ("0.1Gi", "107374182400m"),
            ("0.5Ki", "512"),
            ("0", "0"),
            ("0Mi", "0"),
            ("+1024Mi", "1Gi"),
            ("0.0000000001", "1m"),
            ("1.0000001", "1001m"),
            ("2000000000", "2G"),
        ] {
            assert_eq!(canonical_text(given), stored, "{given}");
            assert_eq!(canonical_text(stored), stored, "{stored} again");
        }
    }

    #[test]
    fn what_is_no_quantity_is_left_as_it_is() {
        for text in [
            "",
            "Mi",
            "1.2.3",
            "ten",
            "1 Gi",
            "1e",
            "1e99",
            "9999999999999999999",
            ".",
        ] {
            assert_eq!(canonical_text(text), text);
        }
    }

    #[test]
    fn bytes_are_written_in_the_largest_unit_that_holds_them() {
        for (given, written) in [
            (64 << 20, "64Mi"),
            (1 << 30, "1Gi"),
            (3 << 29, "1536Mi"),
            (1000, "1k"),
            (1_000_000_001, "1000000001"),
            (512, "512"),
            (1_024_000, "1000Ki"),
            (0, "0"),
        ] {
            assert_eq!(bytes(given).0, written);
            assert_eq!(whole(&bytes(given)), Some(given));
        }
        assert_eq!(whole(&Quantity("1500m".to_owned())), Some(2));
    }
}
