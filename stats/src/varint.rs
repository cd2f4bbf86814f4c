//! Integers in as many bytes as they need, seven bits in each, the least first. For copies in this process only.

/// Appends an integer.
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time are intended")]
pub fn put_varint(to: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// Takes an integer that [`put_varint`] has written from the front of some bytes.
pub fn take_varint(bytes: &mut &[u8]) -> u128 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = take_byte(bytes);
        value |= u128::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
        shift += 7;
    }
}

/// Takes one byte from the front of some bytes.
pub fn take_byte(bytes: &mut &[u8]) -> u8 {
    match bytes.split_first() {
        Some((byte, rest)) => {
            *bytes = rest;
            *byte
        }
        None => {
            debug_assert!(false, "packed bytes are read as they were written");
            0
        }
    }
}
