# The part of YAML that seeds are written in, JSON included. Yaml::read(TEXT) gives a flat hash with "/" between the levels
# of a key: {a: [x, {b: y}]} is ("a/0" => "x", "a/1/b" => "y"). Dies with the line it does not understand.
# Understood: nested maps and lists by indentation, flow and JSON values, quoted and plain scalars, | and > blocks, comments.
# Not understood: anchors, tags, plain scalars over several lines, tabs as indentation.
package Yaml;
use strict;
use warnings;

my (@line, $at, %value);

sub read {
	@line = split /\r?\n/, $_[0];
	($at, %value) = (0);
	$at++ while $at < @line && $line[$at] =~ /^(?:#.*|---\s*|\s*)$/;
	if (my ($indent) = peek()) {
		node("", $indent);
		fail("text after the end") if peek();
	}
	return %value;
}

sub fail { die "line ${\($at + 1)}: $_[0]\n" }
sub emit { $value{$_[0]} = $_[1] }
sub join_key { length $_[0] ? "$_[0]/$_[1]" : $_[1] }

# peek returns indentation and text of the next line that says something, or nothing at the end.
sub peek {
	$at++ while $at < @line && $line[$at] =~ /^\s*(?:#.*)?$/;
	return if $at >= @line || $line[$at] =~ /^\.\.\.$/;
	fail("tab as indentation") if $line[$at] =~ /^ *\t/;
	$line[$at] =~ /^( *)(.*)$/;
	return (length $1, $2);
}

my %escape = (n => "\n", t => "\t", r => "\r", 0 => "", e => "\e", map { $_ => $_ } '"', '\\', '/', ' ');

# quoted takes a quoted scalar off the front of $_[0].
sub quoted {
	if ($_[0] =~ s/^'((?:[^']|'')*)'//) { return $1 =~ s/''/'/gr }
	if ($_[0] =~ s/^"((?:[^"\\]|\\.)*)"//) {
		return $1 =~ s{\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))}{
			if (defined $1 || defined $2) { my $c = chr hex($1 // $2); utf8::encode($c); $c }
			else { $escape{$3} // fail("unknown escape \\$3") }
		}ger;
	}
	fail("quote not closed on its line");
}

# flow takes a value in JSON style off the front of $_[0], fetching lines until it closes.
sub flow {
	my ($key) = $_[1];
	my $next = sub {
		while ($_[0] =~ s/^\s*(?:#.*)?$//) { fail("value not closed") if ++$at >= @line; $_[0] = $line[$at] }
		$_[0] =~ s/^\s+//;
	};
	if ($_[0] =~ s/^([\[\{])//) {
		my ($map, $n) = ($1 eq '{', 0);
		my $close = $map ? qr/^\}/ : qr/^\]/;
		while (1) {
			$next->($_[0]);
			last if $_[0] =~ s/$close//;
			my $name = $n++;
			if ($map) {
				if ($_[0] =~ /^["']/) { $name = quoted($_[0]) }
				elsif ($_[0] =~ s/^([^:,\[\]{}]+?)\s*(?=:)//) { $name = $1 }
				else { fail("key expected in {...}") }
				$_[0] =~ s/^\s*:// or fail("':' expected after $name");
				$next->($_[0]);
			}
			flow($_[0], join_key($key, $name));
			$next->($_[0]);
			$_[0] =~ s/^,// or $_[0] =~ $close or fail("',' expected");
		}
		return;
	}
	return emit($key, quoted($_[0])) if $_[0] =~ /^["']/;
	$_[0] =~ s/^((?:[^,\[\]{}#]|(?<=\S)#)*)// or fail("value expected");
	emit($key, plain($1));
}

sub plain {
	my ($v) = @_;
	$v =~ s/\s+#.*$//;
	$v =~ s/\s+$//;
	fail("anchors and tags are not understood") if $v =~ /^[&*!]/;
	return $v =~ /^(?:~|null)?$/ ? "" : $v;
}

# block reads the lines of a | or > scalar that belongs to a line indented by $outer.
sub block {
	my ($style, $chomp, $digit, $outer) = @_;
	my ($indent, @text) = $digit ? $outer + $digit : undef;
	for (; $at < @line; $at++) {
		if ($line[$at] =~ /^\s*$/) { push @text, ""; next }
		my ($lead) = $line[$at] =~ /^( *)/;
		$indent //= length $lead;
		last if length $lead < $indent || $indent <= $outer;
		push @text, substr $line[$at], $indent;
	}
	my $blank = 0;
	$blank++, pop @text while @text && $text[-1] eq "";
	my $v = join "\n", @text;
	$v =~ s/(?<=[^\n])\n(?=[^\n ])/ /g, $v =~ s/\n\n/\n/g if $style eq '>';
	return $v . ($chomp eq '-' || !@text ? "" : $chomp eq '+' ? "\n" x ($blank + 1) : "\n");
}

# value reads what follows "key:" or "-" on the same line, or the deeper lines below it.
sub value {
	my ($key, $rest, $indent, $in_map) = @_;
	$rest =~ s/^\s+//;
	if ($rest =~ /^([|>])([-+]?)([1-9]?)([-+]?)\s*(?:#.*)?$/) {
		$at++;
		return emit($key, block($1, $2 || $4, $3, $indent));
	}
	if ($rest =~ /^[\[\{"']/) {
		flow($rest, $key);
		$rest =~ /^\s*(?:#.*)?$/ or fail("text after the value: $rest");
		$at++;
		return;
	}
	if ($rest =~ /^(?:#.*)?$/) {
		$at++;
		my ($deep, $text) = peek();
		return emit($key, "") unless defined $deep;
		# a list may stand under its key without indentation
		return node($key, $deep) if $deep > $indent || ($in_map && $deep == $indent && $text =~ /^-(?: |$)/);
		return emit($key, "");
	}
	$at++;
	emit($key, plain($rest));
}

my $name = qr/(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^\s#\[\]{},"'&*!|>%@`-][^#]*?|-[^\s#][^#]*?)/;

# node reads the list or map whose lines are indented by exactly $indent.
sub node {
	my ($key, $indent) = @_;
	my ($n, $list) = (0, undef);
	while (my ($in, $text) = peek()) {
		last if $in < $indent;
		fail("indented by $in, expected $indent") if $in > $indent;
		my $dash = $text =~ /^-(?: |$)/;
		$list //= $dash;
		last if $list && !$dash; # back in the map whose key stands above the list
		if ($dash && $text =~ /^-(?:( +)(.*)|())$/) {
			my ($gap, $rest) = ($1 // "", $2 // "");
			my $item = join_key($key, $n++);
			if ($rest =~ /^(?:- |$name\s*:(?:\s|$))/) { # a map or list that begins on the dash's line
				$line[$at] = " " x ($in + 1 + length $gap) . $rest;
				node($item, $in + 1 + length $gap);
			} else {
				value($item, $rest, $in, 0);
			}
		} elsif ($text =~ /^($name)\s*:(?:\s+(.*)|())$/) {
			my ($k, $rest) = ($1, $2 // "");
			$k = quoted(my $copy = $k) if $k =~ /^["']/;
			value(join_key($key, $k), $rest, $in, 1);
		} elsif ($text =~ /^[\[\{]/ && $key eq "") {
			return value("", $text, $in, 0);
		} else {
			fail("neither 'key: value' nor '- item': $text");
		}
	}
}

1;
