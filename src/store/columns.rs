//! What many rows have in a column, as one array: how a batch reaches its statement (`unnest`).

use tokio_postgres::types::ToSql;

/// A statement's arrays, in their order.
pub(super) type Columns<'a> = Vec<Box<dyn ToSql + Sync + Send + 'a>>;

/// One value of each row, as a column of [`Columns`].
macro_rules! column {
    ($rows:expr, $of:pat => $value:expr) => {
        Box::new($rows.map(|$of| $value).collect::<Vec<_>>())
            as Box<dyn tokio_postgres::types::ToSql + Sync + Send + '_>
    };
}
pub(super) use column;
