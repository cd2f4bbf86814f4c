//! Columns of integers in as many bits as they need: the form of everything that is kept for hours or weeks.
//!
//! A column holds its least value and the differences to it, each in the number of bits of the greatest difference.
//! Equal values take no bits at all. Any integers can be kept, exactly.

use bellwether_stats::varint::{put_varint, take_byte, take_varint};

/// Widths from here on are written as whole 16-byte values.
const WIDE: u8 = 64;

/// Appends a column. Its length is known to the reader.
#[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "the bits are kept")]
pub(crate) fn put_column(to: &mut Vec<u8>, values: &[i128]) {
    let (Some(least), Some(greatest)) = (values.iter().min(), values.iter().max()) else { return };
    put_varint(to, ((least << 1) ^ (least >> 127)) as u128);
    // The difference of any two numbers of 128 bits fits 128 unsigned bits.
    let over = |value: &i128| value.wrapping_sub(*least) as u128;
    let width = (128 - over(greatest).leading_zeros()) as u8;
    to.push(width);
    if width > WIDE {
        values.iter().for_each(|value| to.extend(over(value).to_le_bytes()));
        return;
    }
    let (mut bits, mut count) = (0_u128, 0);
    for value in values.iter().filter(|_| width > 0) {
        bits |= over(value) << count;
        count += u32::from(width);
        while count >= 8 {
            to.push(bits as u8);
            bits >>= 8;
            count -= 8;
        }
    }
    if count > 0 {
        to.push(bits as u8);
    }
}

/// Reads what [`put_varint`] and [`put_column`] have written, in the same order.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        take_byte(&mut self.0)
    }

    /// Reads a varint.
    pub(crate) fn varint(&mut self) -> u128 {
        take_varint(&mut self.0)
    }

    /// Reads a number of entries.
    pub(crate) fn length(&mut self) -> usize {
        usize::try_from(self.varint()).unwrap_or(0)
    }

    /// Reads a column of `count` values.
    #[expect(clippy::cast_possible_wrap, reason = "the bits are kept")]
    pub(crate) fn column(&mut self, count: usize) -> Vec<i128> {
        if count == 0 {
            return Vec::new();
        }
        let least = self.varint();
        let least = (least >> 1) as i128 ^ -((least & 1) as i128);
        let width = self.byte();
        if width > WIDE {
            let wide = |reader: &mut Self| {
                let mut bytes = [0; 16];
                bytes.iter_mut().for_each(|byte| *byte = reader.byte());
                least.wrapping_add(u128::from_le_bytes(bytes) as i128)
            };
            return (0..count).map(|_| wide(self)).collect();
        }
        let mask = (1_u128 << width) - 1;
        let (mut bits, mut there) = (0_u128, 0);
        let narrow = |reader: &mut Self| {
            while there < u32::from(width) {
                bits |= u128::from(reader.byte()) << there;
                there += 8;
            }
            let value = bits & mask;
            bits >>= width;
            there -= u32::from(width);
            least.wrapping_add(value as i128)
        };
        std::iter::repeat_with(|| ())
            .take(count)
            .map({
                let mut narrow = narrow;
                move |()| narrow(self)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn columns_keep_any_integers(
            small in prop::collection::vec(-9_i128..300, 0..70), wide in prop::collection::vec(any::<i128>(), 0..5),
            middle in prop::collection::vec(any::<i64>(), 0..9), number in any::<u128>(),
        ) {
            let middle: Vec<i128> = middle.into_iter().map(i128::from).collect();
            let mut bytes = Vec::new();
            for column in [&small, &wide, &middle] {
                put_column(&mut bytes, column);
                put_varint(&mut bytes, number);
            }
            let mut reader = Reader(&bytes);
            for column in [&small, &wide, &middle] {
                prop_assert_eq!(&reader.column(column.len()), column);
                prop_assert_eq!(reader.varint(), number);
            }
            prop_assert!(reader.0.is_empty());
        }
    }

    #[test]
    fn equal_values_take_no_bits() {
        let mut bytes = Vec::new();
        put_column(&mut bytes, &[60; 1000]);
        assert_eq!(bytes.len(), 2);
        put_column(&mut bytes, &[7, 8, 10, 7, 9, 9, 8, 7]);
        assert_eq!(bytes.len(), 2 + 2 + 2);
    }
}
