//! Bind parameters of a step, sent as the parameter's own type (architecture: "read as the parameter's type").

use bytes::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

/// A larger value gets room for what follows it, too. Otherwise the client's buffer would double for some bytes more, and the
/// next step's value go into the second half of it.
const LARGE: usize = 1 << 20;
const SLACK: usize = 64 << 10;

/// A value whose SQL type the statement decides: raw bytes for `bytea`, else text in that type's input syntax.
#[derive(Debug)]
pub struct StepParam<'a>(pub Option<&'a [u8]>);

/// A payload that the parameter's type cannot take. A data error: trying again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadParameter {
    #[error("the payload is not UTF-8 and the parameter is of type {0}; only bytea takes any bytes")]
    NotUtf8(String),
    #[error("the payload holds a NUL character and the parameter is of type {0}; only bytea takes it")]
    Nul(String),
}

impl ToSql for StepParam<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(bytes) = self.0 else { return Ok(IsNull::Yes) };
        if *ty != Type::BYTEA {
            let text = std::str::from_utf8(bytes).map_err(|_error| BadParameter::NotUtf8(ty.name().to_owned()))?;
            if text.contains('\0') {
                return Err(BadParameter::Nul(ty.name().to_owned()).into());
            }
        }
        if bytes.len() > LARGE {
            let all = (out.len() + bytes.len()).next_multiple_of(SLACK) + SLACK;
            out.reserve(all - out.len());
        }
        out.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn accepts(_ty: &Type) -> bool {
        true
    }

    fn encode_format(&self, ty: &Type) -> Format {
        if *ty == Type::BYTEA { Format::Binary } else { Format::Text }
    }

    fn to_sql_checked(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.to_sql(ty, out)
    }
}
