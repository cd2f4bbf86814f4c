//! Values as text and in binary form: of the rows of an answer, and of parameters.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, make_encoder};
use arrow::temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime};
use bellwether_base::Error;
use bellwether_queries::{PgType, ScalarValue};

use super::failure::Failure;
use super::message::{Form, put_count};

/// Days from 1970 to 2000, where Postgres begins to count.
const DAYS_TO_2000: i32 = 10_957;

/// Microseconds from 1970 to 2000.
const MICROS_TO_2000: i64 = DAYS_TO_2000 as i64 * 86_400 * 1_000_000;

/// Rows of an answer, column by column, of types that Postgres has.
pub(super) struct Rows {
    columns: Vec<Values>,
    /// Their number.
    pub(super) count: usize,
}

/// The values of a column.
enum Values {
    Bool(BooleanArray),
    Int2(Int16Array),
    Int4(Int32Array),
    Int8(Int64Array),
    Float4(Float32Array),
    Float8(Float64Array),
    Text(StringArray),
    /// Decimal numbers, as text.
    Numeric(StringArray),
    Bytes(BinaryArray),
    Date(Date32Array),
    /// Times, with whether they are of a zone, which is UTC.
    Time(TimestampMicrosecondArray, bool),
}

// === impl Rows ===

impl Rows {
    /// Converts rows to types that Postgres has.
    ///
    /// # Errors
    /// If a value has no place in its type, as a time in the year 300,000.
    pub(super) fn new(batch: &RecordBatch) -> Result<Self, Failure> {
        let schema = batch.schema();
        let converted = schema.fields().iter().zip(batch.columns()).map(|(field, column)| Values::new(field, column));
        let columns = converted.collect::<Result<_, ArrowError>>().map_err(|source| {
            Failure::from(Error::config("the rows cannot be sent to a client of Postgres").with_source(source))
        })?;
        Ok(Self { columns, count: batch.num_rows() })
    }

    /// Writes a row, as the body of a message.
    pub(super) fn write(&self, row: usize, forms: &[Form], body: &mut Vec<u8>) {
        put_count(body, self.columns.len());
        for (column, form) in self.columns.iter().zip(forms) {
            let begin = body.len();
            body.extend_from_slice(&(-1_i32).to_be_bytes());
            if column.array().is_null(row) {
                continue;
            }
            match form {
                Form::Text => column.put_text(row, body),
                Form::Binary => column.put_binary(row, body),
            }
            let length = i32::try_from(body.len() - begin - 4).unwrap_or(i32::MAX);
            body[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
        }
    }
}

// === impl Values ===

impl Values {
    fn new(field: &FieldRef, column: &ArrayRef) -> Result<Self, ArrowError> {
        let to = |kind: &DataType| cast(column, kind);
        let time = |zone: Option<&str>| to(&DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into)));
        Ok(match PgType::of(column.data_type()) {
            PgType::BOOL => Self::Bool(to(&DataType::Boolean)?.as_boolean().clone()),
            PgType::INT2 => Self::Int2(to(&DataType::Int16)?.as_primitive().clone()),
            PgType::INT4 => Self::Int4(to(&DataType::Int32)?.as_primitive().clone()),
            PgType::INT8 => Self::Int8(to(&DataType::Int64)?.as_primitive().clone()),
            PgType::FLOAT4 => Self::Float4(to(&DataType::Float32)?.as_primitive().clone()),
            PgType::FLOAT8 => Self::Float8(to(&DataType::Float64)?.as_primitive().clone()),
            PgType::BYTEA => Self::Bytes(to(&DataType::Binary)?.as_binary().clone()),
            PgType::DATE => Self::Date(to(&DataType::Date32)?.as_primitive().clone()),
            PgType::TIMESTAMP => Self::Time(time(None)?.as_primitive().clone(), false),
            PgType::TIMESTAMPTZ => Self::Time(time(Some("+00:00"))?.as_primitive().clone(), true),
            PgType::NUMERIC => Self::Numeric(to(&DataType::Utf8)?.as_string().clone()),
            PgType::JSON => Self::Text(json(field, column)?),
            _ => Self::Text(to(&DataType::Utf8)?.as_string().clone()),
        })
    }

    fn array(&self) -> &dyn Array {
        match self {
            Self::Bool(values) => values,
            Self::Int2(values) => values,
            Self::Int4(values) => values,
            Self::Int8(values) => values,
            Self::Float4(values) => values,
            Self::Float8(values) => values,
            Self::Text(values) | Self::Numeric(values) => values,
            Self::Bytes(values) => values,
            Self::Date(values) => values,
            Self::Time(values, _) => values,
        }
    }

    fn put_text(&self, row: usize, body: &mut Vec<u8>) {
        let text = match self {
            Self::Bool(values) => if values.value(row) { "t" } else { "f" }.to_owned(),
            Self::Int2(values) => values.value(row).to_string(),
            Self::Int4(values) => values.value(row).to_string(),
            Self::Int8(values) => values.value(row).to_string(),
            Self::Float4(values) => float(values.value(row).into(), &values.value(row).to_string()),
            Self::Float8(values) => float(values.value(row), &values.value(row).to_string()),
            Self::Text(values) | Self::Numeric(values) => {
                body.extend_from_slice(values.value(row).as_bytes());
                return;
            }
            Self::Bytes(values) => {
                let digits = values.value(row).iter().map(|byte| format!("{byte:02x}"));
                std::iter::once("\\x".to_owned()).chain(digits).collect()
            }
            Self::Date(values) => date(values.value(row)),
            Self::Time(values, of_zone) => time(values.value(row), *of_zone),
        };
        body.extend_from_slice(text.as_bytes());
    }

    fn put_binary(&self, row: usize, body: &mut Vec<u8>) {
        match self {
            Self::Bool(values) => body.push(values.value(row).into()),
            Self::Int2(values) => body.extend_from_slice(&values.value(row).to_be_bytes()),
            Self::Int4(values) => body.extend_from_slice(&values.value(row).to_be_bytes()),
            Self::Int8(values) => body.extend_from_slice(&values.value(row).to_be_bytes()),
            Self::Float4(values) => body.extend_from_slice(&values.value(row).to_be_bytes()),
            Self::Float8(values) => body.extend_from_slice(&values.value(row).to_be_bytes()),
            Self::Text(values) => body.extend_from_slice(values.value(row).as_bytes()),
            Self::Numeric(values) => put_numeric(values.value(row), body),
            Self::Bytes(values) => body.extend_from_slice(values.value(row)),
            Self::Date(values) => {
                body.extend_from_slice(&values.value(row).saturating_sub(DAYS_TO_2000).to_be_bytes());
            }
            Self::Time(values, _) => {
                body.extend_from_slice(&values.value(row).saturating_sub(MICROS_TO_2000).to_be_bytes());
            }
        }
    }
}

/// Returns nested values as JSON.
fn json(field: &FieldRef, column: &ArrayRef) -> Result<StringArray, ArrowError> {
    // A dictionary says nothing of its values that JSON needs.
    let (field, column) = match column.data_type() {
        DataType::Dictionary(_, value) => {
            (FieldRef::new(Field::new(field.name(), value.as_ref().clone(), true)), cast(column, value)?)
        }
        _ => (FieldRef::clone(field), ArrayRef::clone(column)),
    };
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(&field, column.as_ref(), &options)?;
    let mut bytes = Vec::new();
    let texts = (0..column.len()).map(|row| {
        if column.is_null(row) {
            return None;
        }
        bytes.clear();
        encoder.encode(row, &mut bytes);
        Some(String::from_utf8_lossy(&bytes).into_owned())
    });
    Ok(texts.collect())
}

/// Returns a number of floating point as Postgres writes it; `plain` is its shortest text without an exponent.
fn float(value: f64, plain: &str) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let is_long = value != 0.0 && !(1e-5..1e15).contains(&value.abs());
    if is_long && !value.is_nan() { format!("{value:e}") } else { plain.to_owned() }
}

fn date(days: i32) -> String {
    date32_to_datetime(days).map_or_else(|| days.to_string(), |day| day.date().to_string())
}

/// Returns a time, with the zone UTC if it is of one.
fn time(micros: i64, of_zone: bool) -> String {
    let Some(moment) = timestamp_us_to_datetime(micros) else { return micros.to_string() };
    let mut text = moment.format("%Y-%m-%d %H:%M:%S").to_string();
    let fraction = micros.rem_euclid(1_000_000);
    if fraction != 0 {
        text.push_str(format!(".{fraction:06}").trim_end_matches('0'));
    }
    if of_zone {
        text.push_str("+00");
    }
    text
}

/// Writes a decimal number: digits to the base of 10,000, the exponent of the first, a sign, and the number of decimals.
fn put_numeric(text: &str, body: &mut Vec<u8>) {
    let (sign, plain) = match text.strip_prefix('-') {
        Some(plain) => (0x4000_u16, plain),
        None => (0, text),
    };
    let (whole, decimals) = plain.split_once('.').unwrap_or((plain, ""));
    let whole = whole.trim_start_matches('0');
    let groups = whole.len().div_ceil(4);
    let padded =
        format!("{whole:0>width$}{decimals:0<rest$}", width = groups * 4, rest = decimals.len().div_ceil(4) * 4);
    let digits: Vec<u16> = padded
        .as_bytes()
        .chunks(4)
        .map(|group| group.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
        .collect();
    let last = digits.iter().rposition(|digit| *digit != 0).map_or(0, |place| place + 1);
    put_count(body, last);
    let weight = i16::try_from(groups).unwrap_or(i16::MAX) - 1;
    body.extend_from_slice(&if last == 0 { 0 } else { weight }.to_be_bytes());
    body.extend_from_slice(&if last == 0 { 0 } else { sign }.to_be_bytes());
    put_count(body, decimals.len());
    for digit in &digits[..last] {
        body.extend_from_slice(&digit.to_be_bytes());
    }
}

/// Reads a decimal number, as text.
fn numeric(bytes: &[u8]) -> Option<String> {
    let mut shorts = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (count, weight, sign, decimals) =
        (shorts.next()?, shorts.next()?.cast_signed(), shorts.next()?, shorts.next()?);
    let digits: Vec<u16> = shorts.collect();
    if digits.len() != usize::from(count) || digits.iter().any(|digit| *digit > 9_999) {
        return None;
    }
    let minus = match sign {
        0 => "",
        0x4000 => "-",
        0xC000 => return Some("NaN".to_owned()),
        _ => return None,
    };
    let digit = |place: i32| usize::try_from(place).ok().and_then(|place| digits.get(place)).copied().unwrap_or(0);
    let weight = i32::from(weight);
    if weight > 100 {
        return None;
    }
    let whole: String = (0..=weight).map(|place| format!("{:04}", digit(place))).collect();
    let whole = whole.trim_start_matches('0');
    let mut rest: String =
        (0..i32::from(decimals).div_euclid(4) + 1).map(|place| format!("{:04}", digit(weight + 1 + place))).collect();
    rest.truncate(decimals.into());
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if rest.is_empty() { format!("{minus}{whole}") } else { format!("{minus}{whole}.{rest}") })
}

/// Reads the value of a parameter, which comes in the form of the type `oid`. It is cast to the type of the parameter afterwards.
pub(super) fn parameter(place: usize, oid: u32, form: Form, value: Option<&[u8]>) -> Result<ScalarValue, Failure> {
    let Some(bytes) = value else { return Ok(ScalarValue::Null) };
    if let Some(item) = PgType::item(oid) {
        return list(place, item, form, bytes);
    }
    let wrong = || Failure::new("22P03", format!("parameter ${} is not in the binary form of its type", place + 1));
    if form == Form::Text || matches!(oid, 0 | 18 | 19 | 25 | 114 | 705 | 1042 | 1043) {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Failure::new("22021", format!("parameter ${} is not UTF-8", place + 1)))?;
        return if oid == PgType::BYTEA.oid { from_hex(place, text) } else { Ok(text.into()) };
    }
    let short = || bytes.try_into().map(i16::from_be_bytes).map_err(|_| wrong());
    let long = || bytes.try_into().map(i32::from_be_bytes).map_err(|_| wrong());
    let double = || bytes.try_into().map(i64::from_be_bytes).map_err(|_| wrong());
    let micros = || double()?.checked_add(MICROS_TO_2000).ok_or_else(wrong);
    Ok(match oid {
        16 => match bytes {
            [byte] => ScalarValue::from(*byte != 0),
            _ => return Err(wrong()),
        },
        17 => ScalarValue::Binary(Some(bytes.to_vec())),
        20 => ScalarValue::from(double()?),
        21 => ScalarValue::from(short()?),
        23 => ScalarValue::from(long()?),
        26 => ScalarValue::from(i64::from(long()?.cast_unsigned())),
        700 => ScalarValue::from(f32::from_bits(long()?.cast_unsigned())),
        701 => ScalarValue::from(f64::from_bits(double()?.cast_unsigned())),
        1082 => ScalarValue::Date32(Some(long()?.checked_add(DAYS_TO_2000).ok_or_else(wrong)?)),
        1114 => ScalarValue::TimestampMicrosecond(Some(micros()?), None),
        1184 => ScalarValue::TimestampMicrosecond(Some(micros()?), Some("+00:00".into())),
        1700 => numeric(bytes).ok_or_else(wrong)?.as_str().into(),
        other => return Err(unknown_type(place, other)),
    })
}

/// A parameter is declared as a type that is not served.
pub(super) fn unknown_type(place: usize, oid: u32) -> Failure {
    Failure::new(
        "0A000",
        format!("parameter ${} has the type with the number {oid}, which is not supported", place + 1),
    )
    .with_hint("pass text, a number, a boolean, a date, a time or a list of these, and cast it in the statement")
}

/// Reads the value of a parameter that is a list, in one dimension.
fn list(place: usize, item: u32, form: Form, bytes: &[u8]) -> Result<ScalarValue, Failure> {
    let kind = PgType::parameter(item).ok_or_else(|| unknown_type(place, item))?;
    let items = match form {
        Form::Text => std::str::from_utf8(bytes).ok().and_then(text_items).map(|items| (item, items)),
        Form::Binary => binary_items(bytes),
    };
    let (item, items) = items.ok_or_else(|| {
        Failure::new("22P02", format!("parameter ${} is no list of one dimension", place + 1))
            .with_hint("pass a list of text, numbers, booleans, dates or times")
    })?;
    let value = |bytes: &Option<Vec<u8>>| {
        let value = parameter(place, item, form, bytes.as_deref())?;
        value.cast_to(&kind).map_err(|_| {
            Failure::new(
                "22P02",
                format!("parameter ${} has the item `{value}`, which is not of type {kind}", place + 1),
            )
        })
    };
    let values = items.iter().map(value).collect::<Result<Vec<_>, _>>()?;
    Ok(ScalarValue::List(ScalarValue::new_list(&values, &kind, true)))
}

/// Returns the items of a list as text: `{a,"b c",NULL}`.
fn text_items(text: &str) -> Option<Vec<Option<Vec<u8>>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut items = Vec::new();
    if inner.trim().is_empty() {
        return Some(items);
    }
    let mut letters = inner.chars().peekable();
    loop {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        let mut item = String::new();
        if letters.next_if_eq(&'"').is_some() {
            loop {
                match letters.next()? {
                    '"' => break,
                    '\\' => item.push(letters.next()?),
                    letter => item.push(letter),
                }
            }
            while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
            items.push(Some(item.into_bytes()));
        } else {
            while let Some(letter) = letters.next_if(|letter| *letter != ',') {
                match letter {
                    '{' | '}' | '"' => return None,
                    '\\' => item.push(letters.next()?),
                    letter => item.push(letter),
                }
            }
            let item = item.trim_end();
            match item {
                "" => return None,
                item if item.eq_ignore_ascii_case("NULL") => items.push(None),
                item => items.push(Some(item.as_bytes().to_vec())),
            }
        }
        match letters.next() {
            None => return Some(items),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

/// Returns the items of a list in binary form, and their type.
fn binary_items(bytes: &[u8]) -> Option<(u32, Vec<Option<Vec<u8>>>)> {
    let mut rest = bytes;
    let mut number = || {
        let (number, more) = rest.split_first_chunk::<4>()?;
        rest = more;
        Some(i32::from_be_bytes(*number))
    };
    let (dimensions, _, item) = (number()?, number()?, number()?.cast_unsigned());
    if dimensions == 0 {
        return rest.is_empty().then(|| (item, Vec::new()));
    }
    let (count, _) = (number()?, number()?);
    let mut items = Vec::new();
    if dimensions != 1 {
        return None;
    }
    for _ in 0..count {
        let (length, more) = rest.split_first_chunk::<4>()?;
        rest = more;
        items.push(match i32::from_be_bytes(*length) {
            -1 => None,
            length => {
                let (item, more) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                rest = more;
                Some(item.to_vec())
            }
        });
    }
    rest.is_empty().then_some((item, items))
}

/// Reads bytes from their text, `\x` and hexadecimal digits.
fn from_hex(place: usize, text: &str) -> Result<ScalarValue, Failure> {
    let wrong = || Failure::new("22P02", format!("parameter ${} is no text of bytes such as \\x00ff", place + 1));
    let digits = text.strip_prefix("\\x").filter(|digits| digits.len().is_multiple_of(2)).ok_or_else(wrong)?;
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(pair).collect();
    Ok(ScalarValue::Binary(Some(bytes.ok_or_else(wrong)?)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, ListArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn written(column: ArrayRef, form: Form) -> Vec<Option<Vec<u8>>> {
        let batch = RecordBatch::try_from_iter([("a", column)]).expect("rows");
        let rows = Rows::new(&batch).expect("converted");
        let row = |row| {
            let mut body = Vec::new();
            rows.write(row, &[form], &mut body);
            let length = i32::from_be_bytes(body[2..6].try_into().expect("a length"));
            usize::try_from(length).ok().map(|length| {
                assert_eq!(body.len(), 6 + length);
                body[6..].to_vec()
            })
        };
        (0..rows.count).map(row).collect()
    }

    fn texts(column: ArrayRef) -> Vec<String> {
        let values = written(column, Form::Text).into_iter();
        values
            .map(|value| value.map_or_else(|| "NULL".to_owned(), |bytes| String::from_utf8(bytes).expect("text")))
            .collect()
    }

    #[test]
    fn values_are_written_as_postgres_writes_them() {
        assert_eq!(texts(Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))), ["t", "f", "NULL"]);
        let floats = [0.1, 1.0, -1e300, 1e-9, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 0.0];
        let expected = ["0.1", "1", "-1e300", "1e-9", "Infinity", "-Infinity", "NaN", "0"];
        assert_eq!(texts(Arc::new(Float64Array::from(floats.to_vec()))), expected);
        let micros = vec![0, 1_500_000, -1];
        let times = TimestampMicrosecondArray::from(micros).with_timezone("+00:00");
        let expected = ["1970-01-01 00:00:00+00", "1970-01-01 00:00:01.5+00", "1969-12-31 23:59:59.999999+00"];
        assert_eq!(texts(Arc::new(times)), expected);
        assert_eq!(texts(Arc::new(Date32Array::from(vec![DAYS_TO_2000]))), ["2000-01-01"]);
        assert_eq!(texts(Arc::new(BinaryArray::from(vec![b"\x00\xff".as_slice()]))), ["\\x00ff"]);
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
        assert_eq!(texts(Arc::new(list)), ["[1,null]", "NULL"]);
    }

    #[test]
    fn binary_values_come_back_as_parameters() {
        let check = |column: ArrayRef| {
            let kind = PgType::of(column.data_type());
            for (row, bytes) in written(Arc::clone(&column), Form::Binary).into_iter().enumerate() {
                let value = ScalarValue::try_from_array(&column, row).expect("a value");
                let read = parameter(0, kind.oid, Form::Binary, bytes.as_deref()).expect("reads");
                let read = read.cast_to(&value.data_type()).expect("the same type");
                assert_eq!(read, value, "{}", kind.name);
            }
        };
        check(Arc::new(BooleanArray::from(vec![Some(true), None])));
        check(Arc::new(Int16Array::from(vec![-1])));
        check(Arc::new(Int32Array::from(vec![i32::MIN])));
        check(Arc::new(Int64Array::from(vec![i64::MAX])));
        check(Arc::new(Float32Array::from(vec![-0.5])));
        check(Arc::new(Float64Array::from(vec![1e300])));
        check(Arc::new(StringArray::from(vec!["ä", ""])));
        check(Arc::new(BinaryArray::from(vec![b"\x00\xff".as_slice()])));
        check(Arc::new(Date32Array::from(vec![0, 20_000])));
        check(Arc::new(TimestampMicrosecondArray::from(vec![-5]).with_timezone("+00:00")));
        let decimals = vec![0, 1, -123_456_789, 10_000_000, 99_999_999, -100];
        check(Arc::new(Decimal128Array::from(decimals).with_precision_and_scale(20, 3).expect("fits")));
    }

    #[test]
    fn a_decimal_number_has_the_bytes_that_postgres_sends() {
        // SELECT numeric_send(12345.678): 4 digits 1, 2345, 6780; weight 1, 3 decimals.
        let mut body = Vec::new();
        put_numeric("12345.678", &mut body);
        assert_eq!(body, [0, 3, 0, 1, 0, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1a, 0x7c]);
        body.clear();
        put_numeric("0.00", &mut body);
        assert_eq!(body, [0, 0, 0, 0, 0, 0, 0, 2]);
        for wrong in [b"\0\x01".as_slice(), b"\0\x01\0\0\0\0\0\0", b"\0\x01\x7f\xff\0\0\0\0\0\x01"] {
            assert_eq!(numeric(wrong), None);
        }
    }

    #[test]
    fn a_list_is_read_from_text_and_from_its_binary_form() {
        let texts = |text: &str| list(0, 25, Form::Text, text.as_bytes()).map(|value| value.to_string());
        for (text, shown) in [
            ("{}", "[]"),
            ("{a,b}", "[a, b]"),
            (r#"{ a , "b, c" ,NULL,"NULL","q\"\\ü{}"}"#, r#"[a, b, c, , NULL, q"\ü{}]"#),
            (r"{a\,b,c d}", "[a,b, c d]"),
        ] {
            assert_eq!(texts(text).expect(text), shown);
        }
        for wrong in ["", "a", "{", "{a", "{a,}", "{,a}", "{{a},{b}}", "{\"a}", "{\"a\"b}", "{a\\", "[1:1]={a}"] {
            assert_eq!(texts(wrong).expect_err(wrong).code, "22P02", "{wrong}");
        }
        let numbers = list(0, 20, Form::Text, b"{1,-2,NULL}").expect("numbers");
        assert_eq!(numbers.data_type(), DataType::new_list(DataType::Int64, true));
        assert!(list(0, 20, Form::Text, b"{1,x}").expect_err("a text").message.contains("`x`"));
        let longs = |parts: &[i32]| parts.iter().flat_map(|part| part.to_be_bytes()).collect::<Vec<u8>>();
        // Numbers of 32 bits in place of 64, as some clients send them.
        let binary = longs(&[1, 1, 23, 3, 1, 4, 1, 4, -2, -1]);
        assert_eq!(list(0, 20, Form::Binary, &binary).expect("numbers"), numbers);
        assert_eq!(list(0, 25, Form::Binary, &longs(&[0, 0, 25])).expect("empty").to_string(), "[]");
        for wrong in [
            &longs(&[1, 0, 25]),
            &longs(&[1, 0, 25, 1, 1, 9]),
            &longs(&[2, 0, 25, 1, 1, 1, 1, -1]),
            &binary[1..].to_vec(),
        ] {
            assert_eq!(list(0, 25, Form::Binary, wrong).expect_err("incomplete").code, "22P02");
        }
        assert!(list(0, 25, Form::Binary, &longs(&[1, 0, 25, i32::MAX, 1])).is_err(), "a lie about the number");
    }

    #[test]
    fn a_wrong_parameter_is_refused() {
        for (oid, bytes, code) in
            [(20, b"\0".as_slice(), "22P03"), (16, b"", "22P03"), (600, b"\0", "0A000"), (25, b"\xff", "22021")]
        {
            assert_eq!(parameter(0, oid, Form::Binary, Some(bytes)).expect_err("refused").code, code);
        }
        assert!(parameter(0, 17, Form::Text, Some(b"\\x0")).is_err());
        assert_eq!(parameter(0, 17, Form::Text, Some(b"\\x00ff")).ok(), Some(ScalarValue::Binary(Some(vec![0, 255]))));
    }
}
