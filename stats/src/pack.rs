//! Packed copies of state: small, exact, and for this process only.
//!
//! A detector is copied at every checkpoint, and there are many more checkpoints than detectors. A packed copy holds
//! integers as varints and floats without their trailing zeros, so that it takes the bytes that its numbers need. Large
//! values that never change, such as a learned baseline, are shared with the original; copies side by side can be compressed,
//! because their bytes hold everything else.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::varint::{put_varint, take_byte, take_varint};

/// A value that a packed copy shares with its original.
pub type Shared = Arc<dyn Any + Send + Sync>;

/// A packed copy.
#[derive(Clone, Default)]
pub struct Packed {
    /// Its numbers and texts.
    pub bytes: Box<[u8]>,
    /// The values that it shares, in order.
    pub shared: Box<[Shared]>,
}

/// Collects the parts of a packed copy, in order.
#[derive(Default)]
pub struct Packer {
    bytes: Vec<u8>,
    shared: Vec<Shared>,
}

/// Returns the parts of a packed copy, in the order in which they were packed.
pub struct Unpacker<'a> {
    bytes: &'a [u8],
    shared: std::slice::Iter<'a, Shared>,
}

/// A value that can be packed. `unpack` returns an equal value, to the last bit.
pub trait Pack: Sized {
    /// Appends the value.
    fn pack(&self, to: &mut Packer);

    /// Returns the next value.
    fn unpack(from: &mut Unpacker<'_>) -> Self;
}

/// Implements [`Pack`] for a struct, field by field. A field that is not listed is a compile error.
#[macro_export]
macro_rules! packed {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::pack::Pack for $name {
            fn pack(&self, to: &mut $crate::pack::Packer) {
                let Self { $($field),* } = self;
                $($crate::pack::Pack::pack($field, to);)*
            }

            fn unpack(from: &mut $crate::pack::Unpacker<'_>) -> Self {
                $(let $field = $crate::pack::Pack::unpack(from);)*
                Self { $($field),* }
            }
        }
    };
}

// === impl Packed ===

impl std::fmt::Debug for Packed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} packed bytes", self.bytes.len())
    }
}

impl Packed {
    /// Packs a value.
    pub fn of(value: &impl Pack) -> Self {
        let mut packer = Packer::default();
        value.pack(&mut packer);
        packer.finish()
    }

    /// Returns a reader of its parts.
    pub fn unpacker(&self) -> Unpacker<'_> {
        Unpacker::new(&self.bytes, &self.shared)
    }
}

// === impl Packer ===

impl Packer {
    /// Returns the packed copy.
    pub fn finish(self) -> Packed {
        Packed { bytes: self.bytes.into_boxed_slice(), shared: self.shared.into_boxed_slice() }
    }

    fn varint(&mut self, value: u128) {
        put_varint(&mut self.bytes, value);
    }
}

// === impl Unpacker ===

impl<'a> Unpacker<'a> {
    /// Creates a reader of the parts of a packed copy.
    pub fn new(bytes: &'a [u8], shared: &'a [Shared]) -> Self {
        Self { bytes, shared: shared.iter() }
    }

    fn byte(&mut self) -> u8 {
        take_byte(&mut self.bytes)
    }

    fn varint(&mut self) -> u128 {
        take_varint(&mut self.bytes)
    }
}

impl Pack for u128 {
    fn pack(&self, to: &mut Packer) {
        to.varint(*self);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        from.varint()
    }
}

impl Pack for i128 {
    /// Maps numbers of either sign to few bytes if they are small.
    #[expect(clippy::cast_sign_loss, reason = "the bits are kept")]
    fn pack(&self, to: &mut Packer) {
        to.varint(((self << 1) ^ (self >> 127)) as u128);
    }

    #[expect(clippy::cast_possible_wrap, reason = "the bits are kept")]
    fn unpack(from: &mut Unpacker<'_>) -> Self {
        let value = from.varint();
        (value >> 1) as i128 ^ -((value & 1) as i128)
    }
}

/// Packs integers as wider ones.
macro_rules! integers {
    ($($small:ty as $wide:ty),*) => {$(
        impl Pack for $small {
            fn pack(&self, to: &mut Packer) {
                (*self as $wide).pack(to);
            }

            fn unpack(from: &mut Unpacker<'_>) -> Self {
                <$wide>::unpack(from) as $small
            }
        }
    )*};
}

integers!(u8 as u128, u32 as u128, u64 as u128, usize as u128, i32 as i128, i64 as i128);

impl Pack for bool {
    fn pack(&self, to: &mut Packer) {
        to.bytes.push(u8::from(*self));
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        from.byte() != 0
    }
}

impl Pack for f64 {
    /// Writes the bytes up to the last that is not 0, after their number: sums of whole numbers end in zeros.
    fn pack(&self, to: &mut Packer) {
        let bytes = self.to_bits().to_be_bytes();
        let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |place| place + 1);
        length.pack(to);
        to.bytes.extend(&bytes[..length]);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        let length = usize::unpack(from);
        let mut bytes = [0; 8];
        bytes.iter_mut().take(length).for_each(|byte| *byte = from.byte());
        Self::from_bits(u64::from_be_bytes(bytes))
    }
}

impl<T: Pack> Pack for Option<T> {
    fn pack(&self, to: &mut Packer) {
        self.is_some().pack(to);
        if let Some(value) = self {
            value.pack(to);
        }
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        bool::unpack(from).then(|| T::unpack(from))
    }
}

impl<T: Pack> Pack for Vec<T> {
    fn pack(&self, to: &mut Packer) {
        self.len().pack(to);
        self.iter().for_each(|value| value.pack(to));
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        (0..usize::unpack(from)).map(|_| T::unpack(from)).collect()
    }
}

impl<T: Pack> Pack for VecDeque<T> {
    fn pack(&self, to: &mut Packer) {
        self.len().pack(to);
        self.iter().for_each(|value| value.pack(to));
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        (0..usize::unpack(from)).map(|_| T::unpack(from)).collect()
    }
}

impl<T: Pack, const N: usize> Pack for [T; N] {
    fn pack(&self, to: &mut Packer) {
        self.iter().for_each(|value| value.pack(to));
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        std::array::from_fn(|_| T::unpack(from))
    }
}

impl<A: Pack, B: Pack> Pack for (A, B) {
    fn pack(&self, to: &mut Packer) {
        self.0.pack(to);
        self.1.pack(to);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        (A::unpack(from), B::unpack(from))
    }
}

impl<A: Pack, B: Pack, C: Pack> Pack for (A, B, C) {
    fn pack(&self, to: &mut Packer) {
        self.0.pack(to);
        self.1.pack(to);
        self.2.pack(to);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        (A::unpack(from), B::unpack(from), C::unpack(from))
    }
}

impl<T: Pack> Pack for Box<T> {
    fn pack(&self, to: &mut Packer) {
        self.as_ref().pack(to);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        Self::new(T::unpack(from))
    }
}

impl Pack for Arc<str> {
    fn pack(&self, to: &mut Packer) {
        self.len().pack(to);
        to.bytes.extend(self.as_bytes());
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        let length = usize::unpack(from).min(from.bytes.len());
        let (text, rest) = from.bytes.split_at(length);
        from.bytes = rest;
        match std::str::from_utf8(text) {
            Ok("") => Self::default(),
            Ok(text) => Self::from(text),
            Err(_) => unreachable!("a packed copy is read as it was written"),
        }
    }
}

/// Shared with the original, not copied.
impl<T: Any + Send + Sync> Pack for Arc<T> {
    fn pack(&self, to: &mut Packer) {
        to.shared.push(Self::clone(self));
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        match from.shared.next().map(|value| Arc::clone(value).downcast::<T>()) {
            Some(Ok(value)) => value,
            _ => unreachable!("a packed copy is read as it was written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Sample {
        name: Arc<str>,
        baseline: Option<Arc<Vec<f64>>>,
        sums: Vec<i128>,
        pair: [(f64, bool); 2],
        slots: VecDeque<(i64, u64)>,
        boxed: Box<usize>,
    }

    packed!(Sample { name, baseline, sums, pair, slots, boxed });

    proptest! {
        #[test]
        fn a_packed_copy_is_equal_to_the_last_bit(
            sums in prop::collection::vec(any::<i128>(), 0..5), a in any::<u64>(), b in any::<bool>(),
            slots in prop::collection::vec((any::<i64>(), any::<u64>()), 0..5), boxed in any::<usize>(),
        ) {
            let pair = [(f64::from_bits(a), b), (-0.0, !b)];
            let name = Arc::from("a release");
            let sample = Sample { name, baseline: b.then(Arc::default), sums, pair, slots: slots.into(), boxed: Box::new(boxed) };
            let packed = Packed::of(&sample);
            let again = Sample::unpack(&mut packed.unpacker());
            prop_assert_eq!(again.pair.map(|pair| pair.0.to_bits()), pair.map(|pair| pair.0.to_bits()));
            let unsigned = |sample: &Sample| Sample { pair: Default::default(), ..sample.clone() };
            prop_assert_eq!(unsigned(&again), unsigned(&sample));
            prop_assert!(again.baseline.zip(sample.baseline).is_none_or(|(again, before)| Arc::ptr_eq(&again, &before)));
        }
    }

    #[test]
    fn small_numbers_take_few_bytes() {
        let size = |packed: Packed| packed.bytes.len();
        assert_eq!(size(Packed::of(&vec![0.0; 6])), 7);
        assert_eq!(size(Packed::of(&[1.0, f64::NEG_INFINITY])), 6);
        assert_eq!(size(Packed::of(&[-1_i64, 63, 64])), 4);
        assert_eq!(size(Packed::of(&f64::MAX)), 9);
    }
}
