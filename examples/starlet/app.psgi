# A PSGI application.

use strict;
use warnings;

sub {
    my $body = qq({"pid":$$,"hello":"from Starlet"}\n);
    return [ 200, [ 'Content-Type' => 'application/json', 'Content-Length' => length $body ], [$body] ];
};
