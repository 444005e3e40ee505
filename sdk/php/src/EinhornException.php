<?php

declare(strict_types=1);

namespace Einhorn;

/** What was asked of Einhorn is not there, or it could not be told; the message says what. */
final class EinhornException extends \RuntimeException
{
}
