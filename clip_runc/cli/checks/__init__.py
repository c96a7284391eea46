"""What ``clipctl doctor`` looks at, one file a subject.  They raise nothing."""
