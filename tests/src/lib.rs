//! Tests of the whole workspace: see the files beside this directory.
