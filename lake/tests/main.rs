//! Tests of the log and the files of tables: the protocol, damage, other programs, earlier versions, maintenance.

mod common;
mod damage;
mod foreign;
mod maintain;
mod older;
mod protocol;
