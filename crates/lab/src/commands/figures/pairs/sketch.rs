//! What an error-correcting code would take: the donor sends syndromes of its page, and the joiner, whose page differs in at
//! most half as many symbols, repairs it, without a word before. Symbols have 16 bits: a page is one word of the code.

use std::hint::black_box;
use std::sync::OnceLock;

/// x^16 + x^12 + x^3 + x + 1.
const POLYNOMIAL: u32 = 0x1100b;
const ORDER: usize = 65535;

/// Symbols in which two pages differ.
pub fn symbols(was: &[u8], page: &[u8]) -> usize {
    was.chunks(2).zip(page.chunks(2)).filter(|(a, b)| a != b).count()
}

/// Two syndromes for each symbol that is repaired; the page whole when that is less. As if the donor knew how many it takes.
pub fn bytes(was: &[u8], page: &[u8]) -> f64 {
    (symbols(was, page) * 4).min(page.len()) as f64
}

/// Makes the syndromes with which so many symbols can be repaired.
pub fn make(page: &[u8], symbols: usize) {
    let (exponents, logarithms) = tables();
    let word: Vec<u16> = page.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
    for number in 1..=2 * symbols {
        // Horner's rule, at the number-th power of the generator.
        let sum = word.iter().fold(0u16, |sum, symbol| {
            let times = if sum == 0 {
                0
            } else {
                exponents[(usize::from(logarithms[usize::from(sum)]) + number) % ORDER]
            };
            times ^ symbol
        });
        black_box(sum);
    }
}

fn tables() -> &'static (Vec<u16>, Vec<u16>) {
    static TABLES: OnceLock<(Vec<u16>, Vec<u16>)> = OnceLock::new();
    TABLES.get_or_init(|| {
        let (mut exponents, mut logarithms, mut value) = (vec![0; ORDER], vec![0; ORDER + 1], 1u32);
        for (power, exponent) in exponents.iter_mut().enumerate() {
            *exponent = value as u16;
            logarithms[value as usize] = power as u16;
            value <<= 1;
            if value > ORDER as u32 {
                value ^= POLYNOMIAL;
            }
        }
        (exponents, logarithms)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polynomial_makes_all_symbols() {
        let (exponents, _) = tables();
        let all: std::collections::HashSet<u16> = exponents.iter().copied().collect();
        assert_eq!(all.len(), ORDER);
    }

    #[test]
    fn four_bytes_a_symbol() {
        assert_eq!((symbols(&[1, 2, 3, 4], &[1, 3, 3, 4]), bytes(&[1, 2, 3, 4], &[1, 3, 3, 4])), (1, 4.0));
    }
}
