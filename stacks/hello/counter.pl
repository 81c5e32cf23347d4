# Adds one to a number in a file for every connection, and tells it.
use strict;
use warnings;
use IO::Socket::INET;

my $server = IO::Socket::INET->new(LocalPort => 7000, Listen => 64, ReuseAddr => 1) or die "listen: $!";
my $count = 0;
if (open my $kept, '<', '/data/count') { $count = int(<$kept> // 0); }
$| = 1;
print "counting from $count\n";
while (1) {
    my $client = $server->accept or next;
    # A health probe connects and asks nothing.
    my $word = <$client>;
    next unless defined $word && $word =~ /^next/;
    $count++;
    if (open my $kept, '>', '/data/count') { print $kept $count; close $kept; }
    print $client "$count\n";
}
