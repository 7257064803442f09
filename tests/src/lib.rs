//! Tests of the whole workspace; see the files next to this folder.
