# What early and late share: the log, the state, small files, and a seed's files.
# State in /var/lib/firstboot: `instance` (the id applied), seed/ (the four files, 0700), and what late still owes:
# user-data.todo, phone-home.todo.
package Seed;
use strict;
use warnings;
use lib '/usr/lib/firstboot';
use Yaml;
use Exporter 'import';
our @EXPORT = qw(say slurp spew config below text_kind $state $seed);

our $state = '/var/lib/firstboot';
our $seed  = "$state/seed";
my $log = '/var/log/firstboot.log';
$| = 1;

# say writes to standard output, which the units send to journal and console, and to the log.
sub say {
	print "firstboot: $_[0]\n";
	open(my $f, '>>', $log) or return;
	print $f "firstboot: $_[0]\n";
}

sub slurp {
	open(my $f, '<', $_[0]) or return;
	local $/;
	return scalar <$f> // '';
}

# spew PATH TEXT MODE: the file appears complete and with its mode, or not at all.
sub spew {
	my ($path, $text, $mode) = @_;
	my $new = "$path.firstboot-new";
	unlink $new;
	umask 077;
	my $f;
	my $ok = open($f, '>', $new) && print($f $text) && close($f) && chmod($mode, $new) && rename($new, $path);
	umask 022;
	say("cannot write $path: $!") unless $ok;
	return $ok;
}

# text_kind of a seed's file: script, cloud-config, or other.
sub text_kind {
	my $text = slurp($_[0]) // return '';
	return $text =~ /^#!/ ? 'script' : $text =~ /^#cloud-config\s/ ? 'cloud-config' : length $text ? 'other' : '';
}

# config FILE: its values as Yaml gives them; none when it is absent, or not understood, which is said.
sub config {
	my ($file) = @_;
	my $text = slurp($file) // return;
	my %value = eval { Yaml::read($text) };
	say(($file =~ m{([^/]+)$})[0] . " is not understood, nothing of it is applied: $@" =~ s/\n//r) if $@;
	return %value;
}

# below CONFIG KEY...: the values at or below the keys, lists in their order.
sub below {
	my ($c, @keys) = @_;
	my %at = map { my $k = $_; $k => $k =~ s/(\d+)/sprintf '%09d', $1/ger } keys %$c;
	return map { my $p = $_; map { $c->{$_} } sort { $at{$a} cmp $at{$b} } grep { $_ eq $p || /^\Q$p\E\// } keys %$c } @keys;
}

1;
