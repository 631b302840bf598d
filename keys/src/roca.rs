//! The fingerprint of RSA keys made by the library with CVE-2017-15361 ("ROCA"): their primes, and so their modulus,
//! are powers of 65537 modulo every small prime.

const SMALL_PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103,
    107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// One ordinary key in about 2^27 is called so by chance.
pub(crate) fn has_fingerprint(modulus: &[u8]) -> bool {
    SMALL_PRIMES.iter().all(|prime| {
        let residue = modulus
            .iter()
            .fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        is_power_of_65537(residue, *prime)
    })
}

fn is_power_of_65537(residue: u32, prime: u32) -> bool {
    let generator = 65_537 % prime;
    let mut power = 1;
    loop {
        if power == residue {
            return true;
        }
        power = power * generator % prime;
        if power == 1 {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_65537_carry_the_fingerprint_and_their_neighbours_do_not() {
        let mut number = vec![1_u8];
        for _ in 0..128 {
            number = times_65537(&number);
        }
        assert!(has_fingerprint(&number));
        *number.last_mut().unwrap() ^= 2;
        assert!(!has_fingerprint(&number));
    }

    fn times_65537(number: &[u8]) -> Vec<u8> {
        let shifted: Vec<u8> = number.iter().copied().chain([0, 0]).collect();
        let mut sum = shifted;
        let offset = sum.len() - number.len();
        let mut carry = 0;
        for index in (0..sum.len()).rev() {
            let addend = if index >= offset {
                u16::from(number[index - offset])
            } else {
                0
            };
            let total = u16::from(sum[index]) + addend + carry;
            sum[index] = total.to_le_bytes()[0];
            carry = total >> 8;
        }
        if carry > 0 {
            sum.insert(0, 1);
        }
        sum
    }
}
